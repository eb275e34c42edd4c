#include "shardstep/wire/single_callback_thread.h"

#include <grpc/support/cpu.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include "absl/base/thread_annotations.h"
#include "shardstep/sharding/mutex.h"

namespace shardstep {

// A call whose callback does not return. Without credentials a channel has no transport: its calls
// fail at once, in the same way as others.
class SingleCallbackThread::Parked {
 public:
  Parked() : stub_(grpc::CreateCustomChannel("", nullptr, {})) {
    stub_.UnaryCall(&context_, "/none", {}, &request_, &response_,
                    [this](const grpc::Status&) { Park(); });
    Await(State::kParked);
  }
  ~Parked() {
    {
      MutexLock lock(&mutex_);
      state_ = State::kLeaving;
    }
    changed_.NotifyAll();
    Await(State::kGone);
  }

 private:
  enum class State { kCalled, kParked, kLeaving, kGone };

  void Park() {
    MutexLock lock(&mutex_);
    state_ = State::kParked;
    changed_.NotifyAll();
    while (state_ != State::kLeaving) changed_.Wait(&mutex_);
    state_ = State::kGone;
    // Under the lock: the other side destroys both.
    changed_.NotifyAll();
  }

  void Await(State state) {
    MutexLock lock(&mutex_);
    while (state_ != state) changed_.Wait(&mutex_);
  }

  Mutex mutex_;
  CondVar changed_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kCalled;

  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  const grpc::Slice nothing_;
  const grpc::ByteBuffer request_{&nothing_, 1};
  grpc::ByteBuffer response_;
};

SingleCallbackThread::SingleCallbackThread() {
  if (gpr_cpu_num_cores() <= 2) parked_ = std::make_unique<Parked>();
}

SingleCallbackThread::~SingleCallbackThread() = default;

}  // namespace shardstep
