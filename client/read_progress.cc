#include "shardstep/client/read_progress.h"

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep::internal {

absl::Status ReadTookTooLong() {
  return absl::DeadlineExceededError("the read took longer than it may");
}

void ReadProgress::Restart() {
  begun_ = false;
  bytes_to_come_ = 0;
  frames_ = 0;
  digest_ = FrameDigest();
}

absl::Status ReadProgress::Take(const FrameView& frame) {
  if (frame.header.kind_case() == v1::FrameHeader::kReadBegin) {
    return TakeBegin(frame.header.read_begin());
  }
  if (!begun_) return absl::InternalError("a read without a beginning");
  switch (frame.header.kind_case()) {
    case v1::FrameHeader::kSlices:
      SHARDSTEP_RETURN_IF_ERROR(CheckSlices(frame));
      if (frame.payload_bytes > bytes_to_come_) {
        return absl::InternalError("more bytes than the read began with");
      }
      bytes_to_come_ -= frame.payload_bytes;
      payload_bytes_ += frame.payload_bytes;
      break;
    case v1::FrameHeader::kScalars:
      break;
    case v1::FrameHeader::kReadEnd: {
      const v1::ReadEnd& end = frame.header.read_end();
      if (end.frames() != frames_ || end.digest() != digest_.value() || bytes_to_come_ != 0) {
        return absl::DataLossError("the read ended with other frames than were received");
      }
      complete_ = true;
      return absl::OkStatus();
    }
    default:
      return absl::InternalError("a frame that does not belong into a read");
  }
  ++frames_;
  digest_.Add(frame.crc32c);
  return absl::OkStatus();
}

absl::Status ReadProgress::TakeBegin(const v1::ReadBegin& begin) {
  if (begin.version() != version_ || begin.lineage() != lineage_) {
    return absl::InternalError(absl::StrCat(
        "server ", server_rank_, " answered with version ", begin.version(), " of lineage ",
        begin.lineage(), ", expected version ", version_, " of lineage ", lineage_));
  }
  begun_ = true;
  bytes_to_come_ = begin.bytes();
  return absl::OkStatus();
}

}  // namespace shardstep::internal
