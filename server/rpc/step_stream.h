// StepStream: one Steps stream: many calls of Step at once, each answered when it ends.
#ifndef SHARDSTEP_SERVER_RPC_STEP_STREAM_H_
#define SHARDSTEP_SERVER_RPC_STEP_STREAM_H_

#include <deque>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/server/coordinator.h"
#include "shardstep/server/rpc/bidi_stream.h"
#include "shardstep/server/rpc/server_state.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/v1/coordinator.pb.h"

namespace shardstep {

// An error ends its call, not the stream. While kMaxOpenSteps calls are open the next message is
// not read; the calls keep the stream alive, and what they are answered after its end is dropped.
class StepStream final : public BidiStream<v1::StepCalls, v1::StepAnswers>,
                         public std::enable_shared_from_this<StepStream> {
 public:
  // `state` must outlive it.
  explicit StepStream(ServerState* state) : BidiStream(&state->streams()), state_(state) {}

 private:
  void OnMessage(v1::StepCalls& message) override;
  v1::StepAnswers TakeNext(std::deque<v1::StepAnswers>* queue) override;

  void Begin(v1::StepCalls::Call call);
  absl::StatusOr<std::shared_ptr<Coordinator>> FindCoordinator(const v1::CallHeader& header,
                                                               absl::Duration timeout) const;
  void Answer(uint64_t id, absl::StatusOr<v1::StepReply> reply);

  ServerState* const state_;

  Mutex mutex_;
  int open_ ABSL_GUARDED_BY(mutex_) = 0;       // calls
  bool reads_ ABSL_GUARDED_BY(mutex_) = true;  // else the next message waits for calls to end
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_STEP_STREAM_H_
