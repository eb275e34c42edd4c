// Between gRPC's byte buffers and memory: sending payloads where they lie, receiving them where
// gRPC put them.
#ifndef SHARDSTEP_WIRE_BYTE_BUFFER_H_
#define SHARDSTEP_WIRE_BYTE_BUFFER_H_

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "shardstep/wire/frame.h"

namespace shardstep {

// A shorter piece of a payload is copied into its message: that takes less than to refer to it, and
// to have it written and released by itself.
inline constexpr size_t kShortPieceBytes = 4 << 10;

// A message of `prefix`, which is copied, and the payload's pieces, which are not unless they are
// short: their memory must neither go nor change until `released` runs. That is exactly once, when
// the last reference to any piece is gone, on whichever thread gRPC dropped it; where nothing is
// referred to, before this function returns. `released` must not block and not call gRPC.
grpc::ByteBuffer MakeFrameBuffer(const FramePrefix& prefix,
                                 absl::Span<const absl::string_view> payload,
                                 std::function<void()> released);

// A received message and the memory it lies in. Movable: views stay valid. Confined to one thread
// at a time.
class ReceivedFrame {
 public:
  // Takes the references of `buffer`, which may then be reused. INVALID_ARGUMENT: it holds no
  // message.
  static absl::StatusOr<ReceivedFrame> FromBuffer(const grpc::ByteBuffer& buffer);

  ReceivedFrame(ReceivedFrame&&) = default;
  ReceivedFrame& operator=(ReceivedFrame&&) = default;

  // The message's bytes, piece by piece, for as long as this object lives.
  absl::Span<const absl::string_view> pieces() const { return pieces_; }
  // DecodeFrame of the pieces. The view must not outlive this object.
  absl::StatusOr<FrameView> Decode() const { return DecodeFrame(pieces_); }

 private:
  ReceivedFrame() = default;

  std::vector<grpc::Slice> slices_;
  std::vector<absl::string_view> pieces_;
};

// A message of any type as the bytes of a raw call. An invalid buffer if it exceeds protobuf's 2
// GiB.
grpc::ByteBuffer SerializeToBuffer(const google::protobuf::MessageLite& message);

// The inverse. INVALID_ARGUMENT, naming the type, if the bytes are no such message.
absl::Status ParseFromBuffer(const grpc::ByteBuffer& buffer,
                             google::protobuf::MessageLite* message);

}  // namespace shardstep

#endif  // SHARDSTEP_WIRE_BYTE_BUFFER_H_
