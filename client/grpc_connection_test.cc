#include "shardstep/client/grpc_connection.h"

#include <gmock/gmock.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/v1/shards.grpc.pb.h"
#include "shardstep/wire/credentials.h"
#include "shardstep/wire/transport.h"

namespace shardstep::internal {
namespace {

// Answers a read with its request, and counts calls.
class EchoService final : public v1::Shards::WithRawCallbackMethod_ReadState<v1::Shards::Service> {
 public:
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* ReadState(
      grpc::CallbackServerContext*) override {
    ++calls_;
    return new Call();
  }
  int calls() const { return calls_; }

 private:
  class Call final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
   public:
    Call() { StartRead(&message_); }

   private:
    void OnReadDone(bool ok) override { ok ? StartWrite(&message_) : Finish(grpc::Status::OK); }
    void OnWriteDone(bool ok) override {
      ok ? StartRead(&message_) : Finish(grpc::Status::CANCELLED);
    }
    void OnDone() override { delete this; }

    grpc::ByteBuffer message_;
  };

  std::atomic<int> calls_{0};
};

class Reader final : public StreamListener {
 public:
  explicit Reader(bool one_message) : one_message_(one_message) {}

  void OnSent() override {}
  void OnReceived(const grpc::ByteBuffer&) override {
    MutexLock lock(&mutex_);
    ++received_;
    changed_.NotifyAll();
  }
  bool Complete() override { return one_message_; }
  void OnClosed(const absl::Status& status) override {
    MutexLock lock(&mutex_);
    closed_ = status;
    changed_.NotifyAll();
  }

  void AwaitMessage() {
    MutexLock lock(&mutex_);
    while (received_ == 0) changed_.Wait(&mutex_);
  }
  absl::Status AwaitClosed() {
    MutexLock lock(&mutex_);
    while (!closed_) changed_.Wait(&mutex_);
    EXPECT_EQ(received_, 1);
    return *closed_;
  }

 private:
  const bool one_message_;  // is the whole answer
  Mutex mutex_;
  CondVar changed_;
  int received_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<absl::Status> closed_ ABSL_GUARDED_BY(mutex_);
};

class GrpcConnectionTest : public testing::Test {
 protected:
  GrpcConnectionTest() {
    grpc::ServerBuilder builder;
    ConfigureServer(&builder, 64 << 20);
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", ServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    FleetFile fleet;
    fleet.servers = {absl::StrCat("127.0.0.1:", port)};
    connection_ = MakeGrpcConnection(fleet, /*fleet_path=*/"", RetryPolicy());
  }
  ~GrpcConnectionTest() override {
    connection_.reset();
    server_->Shutdown();
  }

  absl::Status Read() {
    Reader reader(/*one_message=*/true);
    const auto stream = connection_->StartRead(0, v1::ReadStateRequest(), &reader);
    return reader.AwaitClosed();
  }

  EchoService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Connection> connection_;
};

TEST_F(GrpcConnectionTest, OneReadAfterTheOtherTakesOneCall) {
  for (int i = 0; i < 10; ++i) ASSERT_OK(Read());
  EXPECT_EQ(service_.calls(), 1);
}

TEST_F(GrpcConnectionTest, ReadsAtTheSameTimeTakeACallEach) {
  constexpr int kThreads = 8;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([this] {
      for (int k = 0; k < 50; ++k) EXPECT_OK(Read());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(service_.calls(), kThreads);
}

TEST_F(GrpcConnectionTest, AReadThatIsGivenUpTakesItsCallAlong) {
  ASSERT_OK(Read());
  Reader reader(/*one_message=*/false);
  auto stream = connection_->StartRead(0, v1::ReadStateRequest(), &reader);
  reader.AwaitMessage();
  stream.reset();
  EXPECT_THAT(reader.AwaitClosed(), StatusIs(absl::StatusCode::kCancelled));
  ASSERT_OK(Read());
  EXPECT_EQ(service_.calls(), 2);
}

}  // namespace
}  // namespace shardstep::internal
