#include "shardstep/wire/frame.h"

#include <google/protobuf/io/coded_stream.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/dtype.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/crc32c.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/streaming_copy.h"

namespace shardstep {
namespace {

using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;

enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

constexpr uint32_t Tag(uint32_t field, WireType type) { return field << 3 | type; }

constexpr uint32_t kHeaderTag = Tag(v1::Frame::kHeaderFieldNumber, kBytes);
constexpr uint32_t kCrcTag = Tag(v1::Frame::kCrc32CFieldNumber, kFixed32);
constexpr uint32_t kPayloadTag = Tag(v1::Frame::kPayloadFieldNumber, kBytes);
static_assert(kHeaderTag < 0x80 && kCrcTag < 0x80 && kPayloadTag < 0x80, "tags are one byte each");

void AppendVarint(uint64_t value, std::string* out) {
  uint8_t bytes[10];
  const uint8_t* end = CodedOutputStream::WriteVarint64ToArray(value, bytes);
  out->append(reinterpret_cast<const char*>(bytes), end - bytes);
}

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed frame: ", what));
}

// Reads protobuf's encoding.
class Decoder {
 public:
  explicit Decoder(absl::Span<const absl::string_view> pieces) : in_(pieces) {}

  bool at_end() const { return in_.remaining() == 0; }
  PayloadReader& in() { return in_; }

  absl::StatusOr<uint64_t> ReadVarint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      const absl::string_view part = in_.Take(1);
      if (part.empty()) return Malformed("ends within a number");
      const uint8_t byte = part[0];
      if (shift == 63 && byte > 1) break;
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    return Malformed("a number has more than 64 bits");
  }

  absl::StatusOr<uint32_t> ReadFixed32() {
    if (in_.remaining() < 4) return Malformed("ends within its checksum");
    uint8_t bytes[4];
    in_.CopyTo(bytes, sizeof(bytes));
    uint32_t value = 0;
    CodedInputStream::ReadLittleEndian32FromArray(bytes, &value);
    return value;
  }

  // The length of a field that lies ahead whole.
  absl::StatusOr<size_t> ReadLength(absl::string_view field, size_t limit) {
    SHARDSTEP_ASSIGN_OR_RETURN(const uint64_t length, ReadVarint());
    if (length > limit) {
      return Malformed(absl::StrCat(field, " of ", length, " bytes, expected at most ", limit));
    }
    if (length > in_.remaining()) {
      return Malformed(
          absl::StrCat(field, " of ", length, " bytes, only ", in_.remaining(), " follow"));
    }
    return length;
  }

  absl::Status SkipField(uint64_t tag) {
    size_t bytes = 0;
    switch (tag & 7) {
      case kVarint:
        return ReadVarint().status();
      case kFixed64:
        bytes = 8;
        break;
      case kFixed32:
        bytes = 4;
        break;
      case kBytes: {
        SHARDSTEP_ASSIGN_OR_RETURN(bytes, ReadLength("unknown field", in_.remaining()));
        break;
      }
      default:
        return Malformed(absl::StrCat("wire type ", tag & 7));
    }
    if (bytes > in_.remaining()) return Malformed("ends within an unknown field");
    in_.Skip(bytes);
    return absl::OkStatus();
  }

 private:
  PayloadReader in_;
};

}  // namespace

FramePrefix EncodeFramePrefix(const v1::FrameHeader& header,
                              absl::Span<const absl::string_view> payload) {
  FramePrefix prefix;
  const std::string encoded = header.SerializeAsString();
  prefix.crc32c = Crc32c(encoded);
  size_t payload_bytes = 0;
  for (absl::string_view piece : payload) {
    prefix.crc32c = ExtendCrc32c(prefix.crc32c, piece);
    payload_bytes += piece.size();
  }
  std::string& bytes = prefix.bytes;
  bytes.reserve(encoded.size() + 24);
  bytes.push_back(kHeaderTag);
  AppendVarint(encoded.size(), &bytes);
  bytes += encoded;
  // proto3 leaves out a field that has its default.
  if (prefix.crc32c != 0) {
    bytes.push_back(kCrcTag);
    uint8_t fixed[4];
    CodedOutputStream::WriteLittleEndian32ToArray(prefix.crc32c, fixed);
    bytes.append(reinterpret_cast<const char*>(fixed), sizeof(fixed));
  }
  if (payload_bytes > 0) {
    bytes.push_back(kPayloadTag);
    AppendVarint(payload_bytes, &bytes);
  }
  return prefix;
}

absl::StatusOr<FrameView> DecodeFrame(absl::Span<const absl::string_view> pieces) {
  FrameView frame;
  Decoder decoder(pieces);
  std::optional<std::string> header;
  std::optional<uint32_t> crc;
  bool has_payload = false;
  while (!decoder.at_end()) {
    SHARDSTEP_ASSIGN_OR_RETURN(const uint64_t tag, decoder.ReadVarint());
    if (tag > 0xFFFFFFFF || tag >> 3 == 0) return Malformed(absl::StrCat("tag ", tag));
    if (tag == kHeaderTag) {
      if (header.has_value()) return Malformed("two headers");
      SHARDSTEP_ASSIGN_OR_RETURN(const size_t length,
                                 decoder.ReadLength("header", kMaxFrameHeaderBytes));
      header.emplace(length, '\0');
      decoder.in().CopyTo(header->data(), length);
    } else if (tag == kCrcTag) {
      if (crc.has_value()) return Malformed("two checksums");
      SHARDSTEP_ASSIGN_OR_RETURN(crc, decoder.ReadFixed32());
    } else if (tag == kPayloadTag) {
      if (has_payload) return Malformed("two payloads");
      has_payload = true;
      SHARDSTEP_ASSIGN_OR_RETURN(frame.payload_bytes,
                                 decoder.ReadLength("payload", kMaxFramePayloadBytes));
      for (size_t left = frame.payload_bytes; left > 0;) {
        frame.payload.push_back(decoder.in().Take(left));
        left -= frame.payload.back().size();
      }
    } else {
      SHARDSTEP_RETURN_IF_ERROR(decoder.SkipField(tag));
    }
  }
  frame.crc32c = Crc32c(header.value_or(""));
  for (absl::string_view piece : frame.payload) frame.crc32c = ExtendCrc32c(frame.crc32c, piece);
  if (frame.crc32c != crc.value_or(0)) {
    return absl::DataLossError(
        absl::StrCat("frame of ", frame.payload_bytes, " bytes of payload: CRC32C is ",
                     Crc32cHex(frame.crc32c), ", the sender's was ", Crc32cHex(crc.value_or(0))));
  }
  if (!header.has_value()) return Malformed("no header");
  if (!frame.header.ParseFromString(*header)) return Malformed("its header is no FrameHeader");
  return frame;
}

void FrameDigest::Add(uint32_t frame_crc32c) {
  for (int shift = 0; shift < 32; shift += 8) {
    value_ = (value_ ^ (frame_crc32c >> shift & 0xFF)) * 0x100000001b3;
  }
}

absl::Status CheckSlices(const FrameView& frame) {
  uint64_t expected = 0;
  const auto& slices = frame.header.slices().slices();
  for (int i = 0; i < slices.size(); ++i) {
    const v1::Slice& slice = slices[i];
    const auto refuse = [&](absl::string_view what) {
      return absl::InvalidArgumentError(
          absl::StrCat("slice ", i, " of the frame (shard ", slice.shard(), "): ", what));
    };
    const uint64_t item_bytes =
        v1::DType_IsValid(slice.dtype()) ? ItemSize(static_cast<DType>(slice.dtype())) : 0;
    if (item_bytes == 0) return refuse(absl::StrCat("unknown dtype ", slice.dtype()));
    if (slice.body() == v1::Slice::ZERO) continue;
    uint64_t unit_bytes = item_bytes;
    if (slice.body() == v1::Slice::ROWS) {
      if (__builtin_mul_overflow(slice.row_elements(), item_bytes, &unit_bytes) ||
          __builtin_add_overflow(unit_bytes, kRowNumberBytes, &unit_bytes)) {
        return refuse(absl::StrCat("rows of ", slice.row_elements(), " elements"));
      }
    } else if (slice.body() != v1::Slice::DENSE) {
      return refuse(
          absl::StrCat("body ", slice.body(), ", expected DENSE (0), ZERO (1) or ROWS (2)"));
    }
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(slice.count(), unit_bytes, &bytes) ||
        __builtin_add_overflow(expected, bytes, &expected) || expected > frame.payload_bytes) {
      return refuse(absl::StrCat(
          slice.count(), slice.body() == v1::Slice::ROWS ? " rows of " : " elements of ",
          unit_bytes, " bytes reach beyond the payload of ", frame.payload_bytes, " bytes"));
    }
  }
  if (expected != frame.payload_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("frame has ", frame.payload_bytes,
                                                   " bytes of payload, its slices ", expected));
  }
  return absl::OkStatus();
}

absl::string_view PayloadReader::Take(size_t bytes) {
  while (!pieces_.empty() && taken_ == pieces_.front().size()) {
    pieces_.remove_prefix(1);
    taken_ = 0;
  }
  if (pieces_.empty()) return {};
  const absl::string_view part = pieces_.front().substr(taken_, bytes);
  taken_ += part.size();
  remaining_ -= part.size();
  return part;
}

void PayloadReader::CopyTo(void* to, size_t bytes, size_t together) {
  const bool streams = together >= kPastCachesBytes;
  auto* out = static_cast<char*>(to);
  for (bytes = std::min(bytes, remaining_); bytes > 0;) {
    const absl::string_view part = Take(bytes);
    if (streams) {
      StreamingCopy(out, part.data(), part.size());
    } else {
      std::memcpy(out, part.data(), part.size());
    }
    out += part.size();
    bytes -= part.size();
  }
}

void PayloadReader::Skip(size_t bytes) {
  for (bytes = std::min(bytes, remaining_); bytes > 0;) bytes -= Take(bytes).size();
}

}  // namespace shardstep
