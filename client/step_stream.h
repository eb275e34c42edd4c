// StepStream: the steps of all handles of a client, as calls on one Steps stream. It stays for the
// steps to come, and what waits to be sent travels together: a call of its own costs more than a
// small step.
#ifndef SHARDSTEP_CLIENT_STEP_STREAM_H_
#define SHARDSTEP_CLIENT_STEP_STREAM_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/client/byte_stream.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/v1/coordinator.pb.h"

namespace shardstep::internal {

// Thread-safe. Must outlive its steps, and neither may be destroyed by a transport's thread.
class StepStream {
  class Call;

 public:
  // Starts a Steps stream that gives its events to the listener.
  using StartCall = std::function<std::unique_ptr<ByteStream>(StreamListener*)>;

  // A call that is on its way. Confined to one thread.
  class Pending {
   public:
    // Once. Blocks until the coordinator has answered; then the status is its own. Else that which
    // the stream ended with, UNAVAILABLE where it was OK, or DEADLINE_EXCEEDED: time is up, and a
    // call that was not sent by then never is.
    absl::StatusOr<v1::StepReply> Await();

   private:
    friend class StepStream;

    std::shared_ptr<Call> call_;
    uint64_t id_ = 0;
    std::chrono::steady_clock::time_point deadline_;
    std::future<absl::StatusOr<v1::StepReply>> answer_;
  };

  explicit StepStream(StartCall start);
  ~StepStream();

  // Begins one attempt, for which there is `timeout`, of up to ten minutes. INVALID_ARGUMENT: the
  // request is larger than a message.
  absl::StatusOr<Pending> Start(const v1::StepRequest& request, absl::Duration timeout);

 private:
  // The stream that takes the next step: another where that is over or full, which lives on for
  // those who wait.
  std::shared_ptr<Call> Current();

  const StartCall start_;

  Mutex mutex_;
  CondVar changed_;                                     // starting_
  bool starting_ ABSL_GUARDED_BY(mutex_) = false;       // a thread makes the next call_
  std::shared_ptr<Call> call_ ABSL_GUARDED_BY(mutex_);  // null at first
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_STEP_STREAM_H_
