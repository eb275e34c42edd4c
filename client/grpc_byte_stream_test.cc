#include "shardstep/client/grpc_byte_stream.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep::internal {
namespace {

constexpr int kMessages = 200;

// Sends kMessages messages to whoever calls, as fast as they are taken.
class Source final : public grpc::CallbackGenericService {
 private:
  class Reactor final : public grpc::ServerGenericBidiReactor {
   public:
    Reactor() : message_(Message()) { StartWrite(&message_); }

   private:
    static grpc::ByteBuffer Message() {
      const grpc::Slice slice(std::string(64 << 10, 'x'));
      return grpc::ByteBuffer(&slice, 1);
    }
    void OnWriteDone(bool ok) override {
      if (!ok || ++sent_ == kMessages) return Finish(grpc::Status::OK);
      StartWrite(&message_);
    }
    void OnDone() override { delete this; }

    grpc::ByteBuffer message_;
    int sent_ = 0;
  };

  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext*) override {
    return new Reactor();
  }
};

// Wants `more` messages.
class Listener final : public StreamListener {
 public:
  explicit Listener(int more) : wanted_(more) {}

  void OnSent() override {}
  void OnReceived(const grpc::ByteBuffer&) override {
    MutexLock lock(&mutex_);
    ++received_;
    changed_.NotifyAll();
  }
  bool WantsMore() override {
    MutexLock lock(&mutex_);
    return received_ < wanted_;
  }
  void OnClosed(const absl::Status& status) override {
    MutexLock lock(&mutex_);
    closed_ = status;
    changed_.NotifyAll();
  }

  void Want(int more) {
    MutexLock lock(&mutex_);
    wanted_ += more;
  }
  void AwaitReceived(int messages) {
    MutexLock lock(&mutex_);
    while (received_ < messages && !closed_) changed_.Wait(&mutex_);
  }
  absl::Status AwaitClosed() {
    MutexLock lock(&mutex_);
    while (!closed_) changed_.Wait(&mutex_);
    return *closed_;
  }
  int received() {
    MutexLock lock(&mutex_);
    return received_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  int wanted_ ABSL_GUARDED_BY(mutex_);
  int received_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<absl::Status> closed_ ABSL_GUARDED_BY(mutex_);
};

std::unique_ptr<grpc::Server> StartServer(Source* source, int* port) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), port);
  builder.RegisterCallbackGenericService(source);
  return builder.BuildAndStart();
}

std::shared_ptr<grpc::Channel> Connect(int port) {
  return grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials());
}

class GrpcByteStreamTest : public testing::Test {
 protected:
  GrpcByteStreamTest() {
    int port = 0;
    server_ = StartServer(&source_, &port);
    channel_ = Connect(port);
  }

  std::unique_ptr<ByteStream> Start(Listener* listener) {
    return StartGrpcByteStream(channel_, "/test/Read", std::nullopt, listener);
  }

  Source source_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(GrpcByteStreamTest, ReadsNoMoreThanIsWanted) {
  Listener listener(/*more=*/3);
  const std::unique_ptr<ByteStream> stream = Start(&listener);
  for (int received = 3; received < kMessages; received += 7) {
    listener.AwaitReceived(received);
    EXPECT_EQ(listener.received(), received);
    listener.Want(7);
    stream->Resume();
  }
  EXPECT_OK(listener.AwaitClosed());
  EXPECT_EQ(listener.received(), kMessages);
}

TEST_F(GrpcByteStreamTest, ResumingWhatIsNotPausedDoesNothing) {
  Listener listener(/*more=*/kMessages + 1);
  const std::unique_ptr<ByteStream> stream = Start(&listener);
  for (int i = 0; i < 1000; ++i) stream->Resume();
  EXPECT_OK(listener.AwaitClosed());
  stream->Resume();
  EXPECT_EQ(listener.received(), kMessages);
}

TEST_F(GrpcByteStreamTest, APausedStreamIsCancelledAndDestroyed) {
  Listener listener(/*more=*/3);
  std::unique_ptr<ByteStream> stream = Start(&listener);
  listener.AwaitReceived(3);
  stream.reset();
  EXPECT_THAT(listener.AwaitClosed(), StatusIs(absl::StatusCode::kCancelled));
  Listener other(/*more=*/3);
  stream = Start(&other);
  other.AwaitReceived(3);
  server_->Shutdown(std::chrono::system_clock::now());
  other.Want(kMessages);  // what has arrived by now may still come
  stream->Resume();
  EXPECT_FALSE(other.AwaitClosed().ok());
}

// The last of gRPC's channels and servers joins its threads, so none of these may destroy a
// channel. Where one does, this fails about once in 500 rounds: if the callback is held up before
// its last line.
TEST(GrpcByteStreamEndTest, NoCallbackDestroysTheChannel) {
  for (int i = 0; i < 100; ++i) {
    Source source;
    int port = 0;
    const std::unique_ptr<grpc::Server> server = StartServer(&source, &port);
    std::shared_ptr<grpc::Channel> channel = Connect(port);
    Listener listener(/*more=*/kMessages + 1);
    auto stream = StartGrpcByteStream(channel, "/test/Read", std::nullopt, &listener);
    EXPECT_OK(listener.AwaitClosed());
    stream.reset();
  }
}

}  // namespace
}  // namespace shardstep::internal
