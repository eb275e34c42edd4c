#include "shardstep/server/rpc/test_servers.h"

#include <grpcpp/create_channel.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "gtest/gtest.h"
#include "shardstep/wire/credentials.h"
#include "shardstep/wire/frame.h"
#include "shardstep/wire/transport.h"

namespace shardstep {

TestServers::TestServers(int servers) : servers_(servers), channels_(servers) {
  const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
  directory_ = absl::StrCat(::testing::TempDir(), "/", test->test_suite_name(), ".", test->name());
  fleet_.name = "test";
  fleet_.servers.assign(servers, "");
}

TestServers::~TestServers() = default;

ServerOptions TestServers::Options(int rank) const {
  ServerOptions options;
  options.fleet_file = absl::StrCat(directory_, "/server-0/fleet.json");
  options.server_rank = rank;
  options.data_directory = absl::StrCat(directory_, "/server-", rank);
  options.shard_memory = options.push_memory = options.snapshot_memory = 64 << 20;
  options.fatal = fatal_;
  return options;
}

void TestServers::Start(int rank) {
  servers_[rank] = Server::Start(Options(rank)).value();
  channels_[rank] = nullptr;
}

void TestServers::Stop(int rank) { servers_[rank] = nullptr; }

void TestServers::WriteFleetFile() {
  for (size_t rank = 0; rank < servers_.size(); ++rank) {
    fleet_.servers[rank] = servers_[rank] == nullptr ? absl::StrCat("127.0.0.1:", rank + 1)
                                                     : servers_[rank]->address();
  }
  ASSERT_TRUE(fleet_.Write(Options(0).fleet_file).ok());
}

void TestServers::StartAll() {
  const int servers = static_cast<int>(servers_.size());
  for (int rank = 0; rank < servers; ++rank) Start(rank);
  WriteFleetFile();
  for (int rank = 0; rank < servers; ++rank) WaitUntilServing(rank);
}

void TestServers::WaitUntilServing(int rank) {
  const auto stub = grpc::health::v1::Health::NewStub(channel(rank));
  const auto context = Context();
  const auto watch = stub->Watch(context.get(), {});
  grpc::health::v1::HealthCheckResponse health;
  while (watch->Read(&health)) {
    if (health.status() == grpc::health::v1::HealthCheckResponse::SERVING) break;
  }
  EXPECT_EQ(health.status(), grpc::health::v1::HealthCheckResponse::SERVING);
  context->TryCancel();
  watch->Finish();
}

std::shared_ptr<grpc::Channel> TestServers::channel(int rank) {
  if (channels_[rank] == nullptr) {
    channels_[rank] = grpc::CreateCustomChannel(servers_[rank]->address(), ClientCredentials(),
                                                MakeChannelArguments());
  }
  return channels_[rank];
}

std::unique_ptr<grpc::ClientContext> Context() {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  return context;
}

v1::Frame MakeFrame(const v1::FrameHeader& header, absl::string_view payload) {
  v1::Frame frame;
  *frame.mutable_header() = header;
  frame.set_crc32c(EncodeFramePrefix(header, {payload}).crc32c);
  frame.set_payload(std::string(payload));
  return frame;
}

}  // namespace shardstep
