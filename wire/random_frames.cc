#include "shardstep/wire/random_frames.h"

#include <algorithm>

#include "absl/strings/str_join.h"

namespace shardstep {

std::string RandomFrames::Bytes(size_t size) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(engine_());
  return bytes;
}

v1::FrameHeader RandomFrames::Header() {
  v1::FrameHeader header;
  switch (Below(9)) {
    case 0: {
      v1::Begin* begin = header.mutable_begin();
      begin->mutable_header()->set_optimizer("digits");
      begin->mutable_header()->set_session(Number());
      begin->mutable_header()->set_sequence(Number());
      begin->set_weight(Below(3));
      begin->set_computed_on(Number());
      begin->set_last(Below(2) == 0);
      begin->set_digest(Number());
      break;
    }
    case 1: {
      std::string payload;
      return SlicesHeader(&payload);
    }
    case 2:
      header.mutable_end()->set_frames(Number());
      header.mutable_end()->set_digest(Number());
      header.mutable_end()->set_touched(Bytes(Below(300)));
      break;
    case 3:
      header.mutable_cancel();
      break;
    case 4:
      header.mutable_write_begin()->set_staging(Number());
      break;
    case 5:
      header.mutable_read_begin()->set_version(Number());
      header.mutable_read_begin()->set_plan_id("0123456789abcdef0123456789abcdef");
      header.mutable_read_begin()->set_bytes(Number());
      break;
    case 6:
      for (uint64_t i = Below(5); i > 0; --i) {
        v1::Scalars::Scalar* scalar = header.mutable_scalars()->add_scalars();
        scalar->set_parameter(Number());
        scalar->set_value(static_cast<double>(Number()));
      }
      break;
    case 7:
      header.mutable_read_end()->set_frames(Number());
      break;
    default:
      break;
  }
  return header;
}

v1::FrameHeader RandomFrames::SlicesHeader(std::string* payload) {
  v1::FrameHeader header;
  v1::Slices* slices = header.mutable_slices();
  for (uint64_t i = Below(5); i > 0; --i) {
    v1::Slice* slice = slices->add_slices();
    slice->set_shard(Number());
    slice->set_offset(Number());
    slice->set_count(Below(100));
    const bool wide = Below(2) == 0;
    slice->set_dtype(wide ? v1::FLOAT64 : v1::FLOAT32);
    slice->set_body(static_cast<v1::Slice::Body>(Below(3)));
    slice->set_tensor(Below(3));
    uint64_t bytes = wide ? 8 : 4;
    if (slice->body() == v1::Slice::ROWS) {
      slice->set_row_elements(Below(5));
      bytes = slice->row_elements() * bytes + 8;
    }
    if (slice->body() != v1::Slice::ZERO) *payload += Bytes(slice->count() * bytes);
  }
  return header;
}

std::vector<absl::string_view> RandomFrames::Cut(absl::string_view bytes, size_t longest) {
  std::vector<absl::string_view> pieces;
  while (!bytes.empty()) {
    pieces.push_back(bytes.substr(0, Below(longest + 1)));
    bytes.remove_prefix(pieces.back().size());
  }
  return pieces;
}

std::string Join(const std::vector<absl::string_view>& pieces) { return absl::StrJoin(pieces, ""); }

}  // namespace shardstep
