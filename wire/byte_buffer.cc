#include "shardstep/wire/byte_buffer.h"

#include <grpcpp/support/proto_buffer_reader.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace shardstep {
namespace {

// Runs `released` when the last slice that refers to it goes.
struct Release {
  explicit Release(std::function<void()> released) : released(std::move(released)) {}
  ~Release() {
    if (released) released();
  }
  const std::function<void()> released;
};

template <typename T>
void Drop(void* owned) {
  delete static_cast<T*>(owned);
}

}  // namespace

grpc::ByteBuffer MakeFrameBuffer(const FramePrefix& prefix,
                                 absl::Span<const absl::string_view> payload,
                                 std::function<void()> released) {
  const auto release = std::make_shared<Release>(std::move(released));
  std::vector<grpc::Slice> slices;
  std::string copied = prefix.bytes;  // what stands behind the slices so far
  const auto flush = [&] {
    if (copied.empty()) return;
    auto* const owned = new std::string(std::exchange(copied, {}));
    slices.emplace_back(owned->data(), owned->size(), Drop<std::string>, owned);
  };
  for (const absl::string_view piece : payload) {
    if (piece.size() < kShortPieceBytes) {
      copied.append(piece.data(), piece.size());
      continue;
    }
    flush();
    // gRPC never writes to a slice it sends.
    slices.emplace_back(const_cast<char*>(piece.data()), piece.size(),
                        Drop<std::shared_ptr<Release>>, new std::shared_ptr<Release>(release));
  }
  flush();
  return grpc::ByteBuffer(slices.data(), slices.size());
}

absl::StatusOr<ReceivedFrame> ReceivedFrame::FromBuffer(const grpc::ByteBuffer& buffer) {
  ReceivedFrame frame;
  if (!buffer.Valid() || !buffer.Dump(&frame.slices_).ok()) {
    return absl::InvalidArgumentError("the buffer holds no message");
  }
  // A short slice holds its bytes itself, so views are taken once the vector does not grow any
  // more.
  frame.pieces_.reserve(frame.slices_.size());
  for (const grpc::Slice& slice : frame.slices_) {
    frame.pieces_.emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return frame;
}

grpc::ByteBuffer SerializeToBuffer(const google::protobuf::MessageLite& message) {
  std::string bytes;
  if (!message.SerializeToString(&bytes)) return grpc::ByteBuffer();
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

absl::Status ParseFromBuffer(const grpc::ByteBuffer& buffer,
                             google::protobuf::MessageLite* message) {
  if (buffer.Valid()) {
    // The reader takes a pointer to non-const and only reads.
    grpc::ProtoBufferReader reader(const_cast<grpc::ByteBuffer*>(&buffer));
    if (reader.status().ok() && message->ParseFromZeroCopyStream(&reader)) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("malformed message: not a ", message->GetTypeName()));
}

}  // namespace shardstep
