#include "shardstep/client/grpc_byte_stream.h"

#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/client_callback.h>

#include <utility>

#include "absl/base/thread_annotations.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/wire/status.h"

namespace shardstep::internal {
namespace {

// Keeps itself alive from Start to the end of OnDone: gRPC refers to it until then.
class Reactor final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  Reactor(const std::shared_ptr<grpc::Channel>& channel, StreamListener* listener)
      : stub_(channel), listener_(listener) {}

  static void Start(const std::shared_ptr<Reactor>& self, const std::string& method,
                    std::optional<std::chrono::system_clock::time_point> deadline) {
    self->self_ = self;
    if (deadline) self->context_.set_deadline(*deadline);
    self->stub_.PrepareBidiStreamingCall(&self->context_, method, {}, self.get());
    // Held while writes may start from outside gRPC's callbacks.
    self->AddHold();
    self->StartRead(&self->received_);
    self->StartCall();
  }

  // Writes start under the lock, so that none starts after the hold is gone. gRPC runs no callback
  // inside of it.
  void Send(grpc::ByteBuffer message) {
    MutexLock lock(&mutex_);
    if (ending_) return;
    sending_ = std::move(message);
    StartWrite(&sending_);
  }

  void CloseSending() {
    MutexLock lock(&mutex_);
    if (!ending_) StartWritesDone();
  }

  // A call ends with a read that fails, so one must be under way.
  void Cancel() {
    context_.TryCancel();
    {
      MutexLock lock(&mutex_);
      cancelled_ = true;
    }
    Resume();
  }

  // Reads start under the lock where they start outside of gRPC's callbacks.
  void Resume() {
    MutexLock lock(&mutex_);
    if (!std::exchange(paused_, false)) return;
    received_.Clear();
    StartRead(&received_);
  }

  void AwaitDone() {
    MutexLock lock(&mutex_);
    while (!done_) done_changed_.Wait(&mutex_);
  }

  void OnWriteDone(bool ok) override {
    sending_.Clear();
    if (ok) listener_->OnSent();
  }

  void OnReadDone(bool ok) override {
    if (ok) {
      listener_->OnReceived(received_);
      MutexLock lock(&mutex_);
      paused_ = !listener_->WantsMore() && !cancelled_;
      if (paused_) return;
      received_.Clear();
      StartRead(&received_);
      return;
    }
    {
      MutexLock lock(&mutex_);
      ending_ = true;
    }
    RemoveHold();
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<Reactor> self = std::move(self_);
    listener_->OnClosed(FromGrpcStatus(status));
    MutexLock lock(&mutex_);
    done_ = true;
    done_changed_.NotifyAll();
  }

 private:
  grpc::ClientContext context_;
  grpc::GenericStub stub_;
  StreamListener* const listener_;
  std::shared_ptr<Reactor> self_;
  grpc::ByteBuffer received_;
  grpc::ByteBuffer sending_;

  Mutex mutex_;
  CondVar done_changed_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;  // no read is under way
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

class GrpcByteStream final : public ByteStream {
 public:
  explicit GrpcByteStream(std::shared_ptr<Reactor> reactor) : reactor_(std::move(reactor)) {}
  ~GrpcByteStream() override {
    reactor_->Cancel();
    reactor_->AwaitDone();
  }

  void Send(grpc::ByteBuffer message) override { reactor_->Send(std::move(message)); }
  void CloseSending() override { reactor_->CloseSending(); }
  void Resume() override { reactor_->Resume(); }
  void Cancel() override { reactor_->Cancel(); }

 private:
  const std::shared_ptr<Reactor> reactor_;
};

}  // namespace

std::unique_ptr<ByteStream> StartGrpcByteStream(
    const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
    std::optional<std::chrono::system_clock::time_point> deadline, StreamListener* listener) {
  auto reactor = std::make_shared<Reactor>(channel, listener);
  Reactor::Start(reactor, method, deadline);
  return std::make_unique<GrpcByteStream>(std::move(reactor));
}

}  // namespace shardstep::internal
