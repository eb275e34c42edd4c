#include "shardstep/wire/transport.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/v1/shards.grpc.pb.h"
#include "shardstep/wire/credentials.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/rich_status.h"
#include "shardstep/wire/status.h"

namespace shardstep {
namespace {

// Answers Hello with the caller's connection, or with an error that has a trainer's state.
class HelloService : public v1::Shards::Service {
 public:
  grpc::Status Hello(grpc::ServerContext* context, const v1::HelloRequest* request,
                     v1::HelloReply* reply) override {
    if (request->fleet_hash() == "fail") {
      v1::ErrorDetail detail;
      detail.set_reason(v1::ROLLED_BACK);
      detail.mutable_roll_back()->set_trainer_state(std::string(kMaxTrainerStateBytes, 's'));
      return ToGrpcStatus(MakeError(absl::StatusCode::kFailedPrecondition,
                                    std::string(kMaxErrorMessageBytes, 'm'), detail));
    }
    reply->set_fleet_name(context->peer());
    return grpc::Status::OK;
  }
};

class TransportTest : public testing::Test {
 protected:
  TransportTest() {
    server_ = Start(0, &service_, &port_);
    stub_ = NewStub(MakeChannelArguments());
  }
  ~TransportTest() override { server_->Shutdown(); }

  static std::unique_ptr<grpc::Server> Start(int port, HelloService* service, int* bound) {
    grpc::ServerBuilder builder;
    ConfigureServer(&builder, 64 << 20);
    builder.AddListeningPort(absl::StrCat("127.0.0.1:", port), ServerCredentials(), bound);
    builder.RegisterService(service);
    return builder.BuildAndStart();
  }

  std::unique_ptr<v1::Shards::Stub> NewStub(const grpc::ChannelArguments& arguments) {
    return v1::Shards::NewStub(grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", port_),
                                                         ClientCredentials(), arguments));
  }

  static absl::Status Hello(v1::Shards::Stub* stub, const v1::HelloRequest& request,
                            v1::HelloReply* reply = nullptr) {
    grpc::ClientContext context;
    return Call(stub, &context, request, reply);
  }
  static absl::Status Call(v1::Shards::Stub* stub, grpc::ClientContext* context,
                           const v1::HelloRequest& request, v1::HelloReply* reply = nullptr) {
    v1::HelloReply ignored;
    context->set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(20)));
    return FromGrpcStatus(stub->Hello(context, request, reply == nullptr ? &ignored : reply));
  }

  HelloService service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::Shards::Stub> stub_;
};

TEST_F(TransportTest, EachChannelHasAConnectionOfItsOwn) {
  v1::HelloReply first;
  v1::HelloReply second;
  v1::HelloReply third;
  ASSERT_OK(Hello(stub_.get(), {}, &first));
  ASSERT_OK(Hello(stub_.get(), {}, &second));
  const auto other = NewStub(MakeChannelArguments());
  ASSERT_OK(Hello(other.get(), {}, &third));
  EXPECT_EQ(first.fleet_name(), second.fleet_name());
  EXPECT_NE(first.fleet_name(), third.fleet_name());
}

TEST_F(TransportTest, TheLargestErrorArrivesWhole) {
  v1::HelloRequest request;
  request.set_fleet_hash("fail");
  const absl::Status status = Hello(stub_.get(), request);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition,
                               std::string(kMaxErrorMessageBytes, 'm')));
  ASSERT_TRUE(ErrorDetailOf(status).has_value());
  EXPECT_EQ(ErrorDetailOf(status)->roll_back().trainer_state().size(), kMaxTrainerStateBytes);
}

TEST_F(TransportTest, AMessageAboveTheLimitIsRefused) {
  const auto stub = NewStub(grpc::ChannelArguments());  // sends anything
  v1::HelloRequest request;
  request.set_fleet_summary(std::string(kMaxMessageBytes - 100, 'x'));
  EXPECT_OK(Hello(stub.get(), request));
  request.set_fleet_summary(std::string(kMaxMessageBytes + 1, 'x'));
  EXPECT_THAT(Hello(stub.get(), request), StatusIs(absl::StatusCode::kResourceExhausted));
  // Ours does not even send it.
  EXPECT_THAT(Hello(stub_.get(), request), StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_F(TransportTest, ACompressedMessageIsRefused) {
  const auto stub = NewStub(grpc::ChannelArguments());
  v1::HelloRequest request;
  request.set_fleet_summary(std::string(1 << 20, 'x'));
  grpc::ClientContext context;
  context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  EXPECT_THAT(Call(stub.get(), &context, request), StatusIs(absl::StatusCode::kUnimplemented));
}

TEST_F(TransportTest, TooMuchMetadataIsRefused) {
  grpc::ClientContext context;
  context.AddMetadata("x", std::string(2 * kMaxRequestMetadataBytes, 'x'));
  EXPECT_THAT(Call(stub_.get(), &context, {}), StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_F(TransportTest, APortInUseIsRefused) {
  HelloService other;
  int bound = -1;
  const std::unique_ptr<grpc::Server> second = Start(port_, &other, &bound);
  EXPECT_TRUE(second == nullptr || bound == 0);
}

TEST_F(TransportTest, AChannelFindsARestartedServerSoon) {
  ASSERT_OK(Hello(stub_.get(), {}));
  server_->Shutdown();
  server_.reset();
  // Some attempts fail, so that the channel waits between its attempts to connect.
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(Hello(stub_.get(), {}), StatusIs(absl::StatusCode::kUnavailable));
  }
  int bound = 0;
  server_ = Start(port_, &service_, &bound);
  ASSERT_NE(server_, nullptr);
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  EXPECT_OK(Call(stub_.get(), &context, {}));
}

}  // namespace
}  // namespace shardstep
