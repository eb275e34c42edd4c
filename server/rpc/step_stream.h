// StepStream: one Steps stream: many calls of Step at once, each answered when it ends.
#ifndef SHARDSTEP_SERVER_RPC_STEP_STREAM_H_
#define SHARDSTEP_SERVER_RPC_STEP_STREAM_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/server/coordinator.h"
#include "shardstep/server/rpc/bidi_stream.h"
#include "shardstep/server/rpc/server_state.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/v1/coordinator.pb.h"

namespace shardstep {

// An error ends its call, not the stream. While kMaxOpenSteps calls are open the next message is
// not read. The open calls keep the object alive. A stream that a drain ends, or whose client sends
// no more, answers them first; one that is cancelled ends at once, whether or not they ever do, and
// drops their answers.
class StepStream final : public BidiStream<v1::StepCalls, v1::StepAnswers>,
                         public std::enable_shared_from_this<StepStream> {
 public:
  // `state` must outlive it.
  explicit StepStream(ServerState* state) : BidiStream(&state->streams()), state_(state) {}

  void Close(const absl::Status& status) override;

 private:
  void OnMessage(v1::StepCalls& message) override;
  v1::StepAnswers TakeNext(std::deque<v1::StepAnswers>* queue) override;

  absl::StatusOr<std::shared_ptr<Coordinator>> FindCoordinator(const v1::CallHeader& header,
                                                               absl::Duration timeout) const;
  void Answer(uint64_t id, absl::StatusOr<v1::StepReply> reply);

  ServerState* const state_;

  Mutex mutex_;
  int open_ ABSL_GUARDED_BY(mutex_) = 0;  // calls
  // Else the next message waits for calls to end.
  bool reads_ ABSL_GUARDED_BY(mutex_) = true;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  // How the stream ends when no call is open.
  std::optional<absl::Status> ending_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_STEP_STREAM_H_
