#include "shardstep/client/grpc_byte_stream.h"

#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/client_callback.h>

#include <utility>

#include "absl/base/thread_annotations.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/status.h"

namespace shardstep::internal {
namespace {

// gRPC refers to it from Start to the end of OnDone, which AwaitDone awaits. It is not destroyed
// there: its context may hold the last reference to the channel, and a channel that is destroyed in
// a callback joins the thread that it runs on.
class Reactor final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  Reactor(const std::shared_ptr<grpc::Channel>& channel, StreamListener* listener)
      : stub_(channel), listener_(listener) {}

  void Start(const std::string& method,
             std::optional<std::chrono::system_clock::time_point> deadline) {
    if (deadline) context_.set_deadline(*deadline);
    stub_.PrepareBidiStreamingCall(&context_, method, {}, this);
    // Held while writes may start from outside gRPC's callbacks.
    AddHold();
    StartRead(&received_);
    StartCall();
  }

  // Writes start under the lock, so that none starts after the hold is gone. gRPC runs no callback
  // inside of it.
  void Send(grpc::ByteBuffer* message, bool another_follows) {
    grpc::WriteOptions options;
    if (another_follows && message->Length() <= kSmallMessageBytes) options.set_buffer_hint();
    MutexLock lock(&mutex_);
    if (ending_) return;
    sending_.Swap(message);  // a ByteBuffer has no move
    StartWrite(&sending_, options);
  }

  void CloseSending() {
    MutexLock lock(&mutex_);
    if (!ending_) StartWritesDone();
  }

  // A call ends with a read that fails, so one must be under way. One that is over is left alone:
  // gRPC would still hand the cancelling to its transport.
  void Cancel() {
    {
      MutexLock lock(&mutex_);
      if (over_) return;
      cancelled_ = true;
    }
    context_.TryCancel();
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
    {
      MutexLock lock(&mutex_);
      over_ = true;
    }
    listener_->OnClosed(FromGrpcStatus(status));
    MutexLock lock(&mutex_);
    done_ = true;
    done_changed_.NotifyAll();
  }

 private:
  grpc::ClientContext context_;
  grpc::GenericStub stub_;
  StreamListener* const listener_;
  grpc::ByteBuffer received_;
  grpc::ByteBuffer sending_;

  Mutex mutex_;
  CondVar done_changed_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;  // no read is under way
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

class GrpcByteStream final : public ByteStream {
 public:
  GrpcByteStream(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                 std::optional<std::chrono::system_clock::time_point> deadline,
                 StreamListener* listener)
      : reactor_(channel, listener) {
    reactor_.Start(method, deadline);
  }
  ~GrpcByteStream() override {
    reactor_.Cancel();
    reactor_.AwaitDone();
  }

  void Send(grpc::ByteBuffer&& message, bool another_follows) override {
    reactor_.Send(&message, another_follows);
  }
  void CloseSending() override { reactor_.CloseSending(); }
  void Resume() override { reactor_.Resume(); }
  void Cancel() override { reactor_.Cancel(); }

 private:
  Reactor reactor_;
};

}  // namespace

std::unique_ptr<ByteStream> StartGrpcByteStream(
    const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
    std::optional<std::chrono::system_clock::time_point> deadline, StreamListener* listener) {
  return std::make_unique<GrpcByteStream>(channel, method, deadline, listener);
}

}  // namespace shardstep::internal
