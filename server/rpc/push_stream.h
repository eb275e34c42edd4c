// PushStream: one PushGradients stream, frame after frame.
#ifndef SHARDSTEP_SERVER_RPC_PUSH_STREAM_H_
#define SHARDSTEP_SERVER_RPC_PUSH_STREAM_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "shardstep/server/push.h"
#include "shardstep/server/rpc/bidi_stream.h"
#include "shardstep/server/rpc/server_state.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/v1/frame.pb.h"
#include "shardstep/wire/frame.h"

namespace shardstep {

// An error ends its push: the acknowledgement with it goes out at once, and the push's further
// frames are ignored. What is no frame, or stands where it cannot, ends the stream. Slices are
// copied into place on gRPC's thread; the next frame is read when the one before has been dealt
// with, so acknowledgements come in the order of the pushes.
class PushStream final : public BidiStream<grpc::ByteBuffer, grpc::ByteBuffer>,
                         public std::enable_shared_from_this<PushStream> {
 public:
  // `state` must outlive it.
  explicit PushStream(ServerState* state) : BidiStream(&state->streams()), state_(state) {}

 private:
  enum class Phase { kNoPush, kOpen, kFailed };

  void OnMessage(grpc::ByteBuffer& message) override;
  void OnFrame(const FrameView& frame);
  // These two read the next frame themselves.
  void OnBegin(const v1::Begin& begin);
  void OnEnd(const v1::End& end);
  void OnSlices(const FrameView& frame);
  void OnCancelFrame();

  // Ends the push that is open with an acknowledgement of `status`, which is not OK.
  void Fail(const absl::Status& status);
  void Acknowledge(const absl::Status& status);

  ServerState* const state_;

  // Whoever deals with the frame at hand has these.
  Phase phase_ = Phase::kNoPush;
  uint64_t session_ = 0;
  uint64_t sequence_ = 0;
  std::shared_ptr<ShardHost> host_;
  std::shared_ptr<Push> push_;  // in kOpen
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_PUSH_STREAM_H_
