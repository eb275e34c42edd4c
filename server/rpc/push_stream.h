// PushStream: one PushGradients stream, frame after frame.
#ifndef SHARDSTEP_SERVER_RPC_PUSH_STREAM_H_
#define SHARDSTEP_SERVER_RPC_PUSH_STREAM_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "shardstep/server/push_table.h"
#include "shardstep/server/rpc/bidi_stream.h"
#include "shardstep/server/rpc/server_state.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/v1/frame.pb.h"
#include "shardstep/wire/byte_buffer.h"
#include "shardstep/wire/frame.h"

namespace shardstep {

// An error ends its push: the acknowledgement with it goes out at once, and the push's further
// frames are ignored. What is no frame, or stands where it cannot, ends the stream. Slices are
// copied into place on gRPC's thread; the next message is read when all frames of the one before
// have been dealt with, so acknowledgements come in the order of the pushes.
class PushStream final : public BidiStream<grpc::ByteBuffer, grpc::ByteBuffer>,
                         public std::enable_shared_from_this<PushStream> {
 public:
  // `state` must outlive it.
  explicit PushStream(ServerState* state) : BidiStream(&state->streams()), state_(state) {}

 private:
  enum class Phase { kNoPush, kOpen, kFailed };

  void OnMessage(grpc::ByteBuffer& message) override;
  // Goes on with the message at hand, then reads the next one.
  void Continue();
  // These three return whether it has been dealt with; else they go on themselves, later.
  bool OnFrame(const FrameView& frame);
  bool OnBegin(const v1::Begin& begin);
  bool OnEnd(const v1::End& end);
  void OnSlices(const FrameView& frame);
  void OnCancelFrame();
  // Ends the stream; what is left of the message is ignored.
  void Break(const absl::Status& status);

  // Ends the push that is open with an acknowledgement of `status`, which is not OK.
  void Fail(const absl::Status& status);
  void Acknowledge(const absl::Status& status);

  ServerState* const state_;

  // Whoever deals with the frame at hand has these.
  std::optional<ReceivedFrame> received_;
  std::deque<FrameView> frames_;  // of it, not dealt with yet
  Phase phase_ = Phase::kNoPush;
  uint64_t session_ = 0;
  uint64_t sequence_ = 0;
  std::shared_ptr<ShardHost> host_;
  std::shared_ptr<Push> push_;  // in kOpen
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_PUSH_STREAM_H_
