// StepStream: the steps of all handles of a client, as calls on one Steps stream. It stays for the
// steps to come, and what waits to be sent travels together: a call of its own costs more than a
// small step.
#ifndef SHARDSTEP_CLIENT_STEP_STREAM_H_
#define SHARDSTEP_CLIENT_STEP_STREAM_H_

#include <functional>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/client/byte_stream.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/v1/coordinator.pb.h"

namespace shardstep::internal {

// Thread-safe. Must outlive the calls of Step, and must not be destroyed by a transport's thread.
class StepStream {
 public:
  // Starts a Steps stream that gives its events to the listener.
  using StartCall = std::function<std::unique_ptr<ByteStream>(StreamListener*)>;

  explicit StepStream(StartCall start);
  ~StepStream();

  // One attempt. Blocks until the coordinator has answered; then the status is its own. The status
  // that the stream ended with, UNAVAILABLE where that was OK; the next step opens another stream.
  // DEADLINE_EXCEEDED: no answer within `timeout`, a millisecond to ten minutes.
  absl::StatusOr<v1::StepReply> Step(const v1::StepRequest& request, absl::Duration timeout);

 private:
  class Call;

  // The stream that takes the next step. One that is over or full lives on for those who wait.
  std::shared_ptr<Call> Current();

  const StartCall start_;

  Mutex mutex_;
  std::shared_ptr<Call> call_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_STEP_STREAM_H_
