// Frames: encoding and decoding v1.Frame (proto/shardstep/v1/frame.proto) by hand, around payloads
// that are not copied. Knows no gRPC: bytes come and go as pieces of memory (see byte_buffer.h for
// those of the transport).
//
// Nothing here owns payload memory: pieces must outlive every view that was made of them. All
// functions are pure and safe from any thread; objects are confined to one thread at a time.
// Nothing blocks.
#ifndef SHARDSTEP_WIRE_FRAME_H_
#define SHARDSTEP_WIRE_FRAME_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "shardstep/v1/frame.pb.h"

namespace shardstep {

// An encoded frame without its payload.
struct FramePrefix {
  // Everything that stands before the payload: prefix and payload together are, byte for byte, what
  // protobuf makes of the Frame.
  std::string bytes;
  // The frame's checksum, for a FrameDigest.
  uint32_t crc32c = 0;
};

// The prefix of a frame with `header` and the payload that `payload`'s pieces make, one behind the
// other. Limits are the caller's to keep: kMaxFramePayloadBytes, and kMaxFrameHeaderBytes for the
// encoded header (limits.h).
FramePrefix EncodeFramePrefix(const v1::FrameHeader& header,
                              absl::Span<const absl::string_view> payload);

// A decoded frame whose payload still lies in the pieces it was decoded from.
struct FrameView {
  v1::FrameHeader header;
  std::vector<absl::string_view> payload;
  size_t payload_bytes = 0;
  uint32_t crc32c = 0;
};

// Decodes one frame that `pieces`, of any lengths, make one behind the other. Takes any order of
// fields and skips unknown ones; unlike protobuf it refuses a field that stands twice. DATA_LOSS:
// the checksum is not that of header and payload. INVALID_ARGUMENT: not a Frame, or larger than the
// limits allow. Memory is taken for the header's bytes that are there, never for lengths that are
// only declared.
absl::StatusOr<FrameView> DecodeFrame(absl::Span<const absl::string_view> pieces);

// What End.digest and ReadEnd.digest hold: FNV-1a of 64 bits (basis 0xcbf29ce484222325, prime
// 0x100000001b3) over the checksums of the Slices frames in their order, each as four bytes, lowest
// first. Scalars frames count as well in a read. Depends on the order; the digest of no frame is
// the basis.
class FrameDigest {
 public:
  void Add(uint32_t frame_crc32c);
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325;
};

// Of the number before each row of a body of ROWS.
inline constexpr uint64_t kRowNumberBytes = sizeof(int64_t);

// That every slice of a Slices frame is of a known dtype, dense, zero or rows, and that their
// bodies together are as long as the payload. INVALID_ARGUMENT otherwise, naming the slice. Shards,
// ranges and the numbers of rows are the receiver's to check.
absl::Status CheckSlices(const FrameView& frame);

// Reads bytes that lie in pieces, such as a frame's payload, from the beginning on. What it reads
// from must outlive it. Reading more than remaining() is the caller's bug and reads what there is;
// after CheckSlices it cannot happen.
class PayloadReader {
 public:
  explicit PayloadReader(const FrameView& frame) : PayloadReader(frame.payload) {}
  explicit PayloadReader(absl::Span<const absl::string_view> pieces) : pieces_(pieces) {
    for (absl::string_view piece : pieces) remaining_ += piece.size();
  }

  size_t remaining() const { return remaining_; }
  // Copies the next `bytes` bytes to `to`. `together`: about how many all calls copy before any of
  // them is read; decides whether they go past the caches (wire/streaming_copy.h).
  void CopyTo(void* to, size_t bytes, size_t together = 0);
  void Skip(size_t bytes);
  // The next bytes where they lie: at most `bytes`, and no more than are in one piece; empty only
  // at the end. Elements may straddle pieces, and need not be aligned.
  absl::string_view Take(size_t bytes);

 private:
  absl::Span<const absl::string_view> pieces_;
  size_t taken_ = 0;  // of the first piece
  size_t remaining_ = 0;
};

}  // namespace shardstep

#endif  // SHARDSTEP_WIRE_FRAME_H_
