// A server's life on a real socket, and what it answers to callers that are wrong.
#include "shardstep/server/rpc/server.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/support/sync_stream.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "gtest/gtest.h"
#include "shardstep/server/rpc/test_servers.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/v1/coordinator.grpc.pb.h"
#include "shardstep/v1/peer.grpc.pb.h"
#include "shardstep/v1/shards.grpc.pb.h"
#include "shardstep/wire/rich_status.h"
#include "shardstep/wire/status.h"

namespace shardstep {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

v1::CallHeader HeaderOf(const std::string& optimizer) {
  v1::CallHeader header;
  header.set_optimizer(optimizer);
  return header;
}

v1::Frame Begin(const std::string& optimizer, uint64_t session, uint64_t sequence) {
  v1::FrameHeader header;
  *header.mutable_begin()->mutable_header() = HeaderOf(optimizer);
  header.mutable_begin()->mutable_header()->set_session(session);
  header.mutable_begin()->mutable_header()->set_sequence(sequence);
  header.mutable_begin()->set_weight(1);
  return MakeFrame(header);
}

v1::Frame Slices() {
  v1::FrameHeader header;
  header.mutable_slices();
  return MakeFrame(header);
}

v1::Frame End() {
  v1::FrameHeader header;
  header.mutable_end();
  return MakeFrame(header);
}

class ServerTest : public ::testing::Test {
 protected:
  explicit ServerTest(int servers = 1) : fleet_(servers) {}

  std::unique_ptr<v1::Shards::Stub> Shards(int rank = 0) {
    return v1::Shards::NewStub(fleet_.channel(rank));
  }
  std::unique_ptr<v1::Coordinator::Stub> Coordinator(int rank = 0) {
    return v1::Coordinator::NewStub(fleet_.channel(rank));
  }
  absl::StatusOr<v1::HelloReply> Hello(const v1::HelloRequest& request, int rank = 0) {
    v1::HelloReply reply;
    const grpc::Status status = Shards(rank)->Hello(Context().get(), request, &reply);
    if (!status.ok()) return FromGrpcStatus(status);
    return reply;
  }
  absl::Status RenewSession(const std::string& optimizer, int rank = 0) {
    v1::RenewSessionRequest request;
    *request.mutable_header() = HeaderOf(optimizer);
    v1::RenewSessionReply reply;
    return FromGrpcStatus(Coordinator(rank)->RenewSession(Context().get(), request, &reply));
  }
  absl::StatusOr<v1::OpenSessionReply> OpenSession(const std::string& optimizer, int trainer_rank) {
    v1::OpenSessionRequest request;
    *request.mutable_header() = HeaderOf(optimizer);
    request.set_trainer_rank(trainer_rank);
    request.set_instance("an instance");
    v1::OpenSessionReply reply;
    const grpc::Status status = Coordinator()->OpenSession(Context().get(), request, &reply);
    if (!status.ok()) return FromGrpcStatus(status);
    return reply;
  }
  // Sends `frames` on a new stream and says how the stream ended.
  absl::Status Push(const std::vector<v1::Frame>& frames,
                    std::vector<v1::PushAck>* acks = nullptr) {
    const auto context = Context();
    const auto stub = Shards();
    const auto stream = stub->PushGradients(context.get());
    for (const v1::Frame& frame : frames) stream->Write(frame);
    stream->WritesDone();
    for (v1::PushAck ack; stream->Read(&ack);) {
      if (acks != nullptr) acks->push_back(ack);
    }
    return FromGrpcStatus(stream->Finish());
  }

  TestServers fleet_;
};

TEST_F(ServerTest, HelloTellsWhoAnswers) {
  fleet_.StartAll();
  v1::HelloRequest request;
  request.set_fleet_hash(fleet_.fleet().Hash());
  ASSERT_OK_AND_ASSIGN(const v1::HelloReply reply, Hello(request));
  EXPECT_TRUE(reply.serving());
  EXPECT_EQ(reply.server_rank(), 0);
  EXPECT_EQ(reply.incarnation(), 1u);
  EXPECT_EQ(reply.fleet_hash(), fleet_.fleet().Hash());
  EXPECT_EQ(reply.fleet_name(), "test");
  ASSERT_EQ(reply.addresses_size(), 1);
  EXPECT_EQ(reply.addresses(0), fleet_.server(0).address());
  EXPECT_NE(reply.numeric_fingerprint(), 0u);
}

TEST_F(ServerTest, AnotherFleetOrRankIsRefusedWithBothSides) {
  fleet_.StartAll();
  v1::HelloRequest request;
  request.set_fleet_hash("12345678");
  request.set_fleet_summary("the other fleet's summary");
  const absl::Status fleet = Hello(request).status();
  EXPECT_THAT(fleet,
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr(fleet_.fleet().Summary()), HasSubstr("the other fleet's"))));
  EXPECT_EQ(ReasonOf(fleet), v1::FLEET_MISMATCH);
  v1::HelloRequest wrong_rank;
  wrong_rank.set_server_rank(2);
  const absl::Status rank = Hello(wrong_rank).status();
  EXPECT_THAT(rank, StatusIs(absl::StatusCode::kFailedPrecondition,
                             AllOf(HasSubstr("server 0"), HasSubstr("server 2"))));
  EXPECT_EQ(ReasonOf(rank), v1::FLEET_MISMATCH);
}

TEST_F(ServerTest, CallsWithoutDeadlineAreRefused) {
  fleet_.StartAll();
  grpc::ClientContext none;
  v1::HelloReply hello;
  const absl::Status unary = FromGrpcStatus(Shards()->Hello(&none, {}, &hello));
  EXPECT_THAT(unary, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("Hello")));
  EXPECT_EQ(ReasonOf(unary), v1::DEADLINE_REQUIRED);

  grpc::ClientContext hours;
  hours.set_deadline(std::chrono::system_clock::now() + std::chrono::hours(2));
  v1::StepReply step;
  EXPECT_EQ(ReasonOf(FromGrpcStatus(Coordinator()->Step(&hours, {}, &step))),
            v1::DEADLINE_REQUIRED);

  grpc::ClientContext read_context;
  const auto stub = Shards();
  const auto read = stub->ReadState(&read_context);
  v1::Frame frame;
  EXPECT_FALSE(read->Read(&frame));
  EXPECT_EQ(ReasonOf(FromGrpcStatus(read->Finish())), v1::DEADLINE_REQUIRED);

  grpc::ClientContext write_context;
  v1::WriteStateReply written;
  const auto write = stub->WriteState(&write_context, &written);
  write->WritesDone();
  EXPECT_EQ(ReasonOf(FromGrpcStatus(write->Finish())), v1::DEADLINE_REQUIRED);
}

TEST_F(ServerTest, UnknownOptimizersAreNotFound) {
  fleet_.StartAll();
  const absl::Status renewed = RenewSession("nobody");
  EXPECT_THAT(renewed, StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"nobody\"")));
  EXPECT_EQ(ReasonOf(renewed), v1::NO_OPTIMIZER);
  EXPECT_THAT(RenewSession("no/such name"), StatusIs(absl::StatusCode::kInvalidArgument));

  v1::ReadStateRequest request;
  *request.mutable_header() = HeaderOf("nobody");
  const auto context = Context();
  const auto stub = Shards();
  const auto read = stub->ReadState(context.get());
  read->Write(request);
  v1::Frame frame;
  EXPECT_FALSE(read->Read(&frame));
  EXPECT_THAT(FromGrpcStatus(read->Finish()), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(ServerTest, AnErrorEndsThePushAndNotTheStream) {
  fleet_.StartAll();
  ASSERT_OK(OpenSession("m", 0).status());
  std::vector<v1::PushAck> acks;
  ASSERT_OK(Push({Begin("nobody", 1, 1), Slices(), Slices(), End(),  // one acknowledgement
                  Begin("m", 1, 2),                                  // no optimizer yet, no end
                  Begin("nobody", 1, 3), End()},
                 &acks));
  ASSERT_EQ(acks.size(), 3u);
  for (size_t i = 0; i < acks.size(); ++i) {
    EXPECT_EQ(acks[i].sequence(), i + 1);
    EXPECT_EQ(acks[i].status().code(), static_cast<int>(absl::StatusCode::kNotFound));
  }
}

TEST_F(ServerTest, WhatCannotBeParsedEndsTheStream) {
  fleet_.StartAll();
  EXPECT_THAT(Push({Slices()}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("outside a push")));
  EXPECT_THAT(Push({End()}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("outside a push")));
  v1::Frame corrupt = Begin("m", 1, 1);
  corrupt.set_crc32c(corrupt.crc32c() + 1);
  EXPECT_THAT(Push({corrupt}), StatusIs(absl::StatusCode::kDataLoss));
  v1::FrameHeader read_end;
  read_end.mutable_read_end();
  EXPECT_THAT(Push({MakeFrame(read_end)}), StatusIs(absl::StatusCode::kInvalidArgument));
}

// Bytes that are no message at all, on the methods that take them raw.
TEST_F(ServerTest, GarbageIsInvalidArgument) {
  fleet_.StartAll();
  const grpc::Slice slice("\xff\xff garbage");
  const grpc::ByteBuffer garbage(&slice, 1);
  for (const char* name : {"PushGradients", "ReadState", "WriteState"}) {
    const std::string path = std::string("/shardstep.v1.Shards/") + name;
    const grpc::internal::RpcMethod method(path.c_str(), grpc::internal::RpcMethod::BIDI_STREAMING);
    const auto context = Context();
    std::unique_ptr<grpc::ClientReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>> stream(
        grpc::internal::ClientReaderWriterFactory<grpc::ByteBuffer, grpc::ByteBuffer>::Create(
            fleet_.channel(0).get(), method, context.get()));
    stream->Write(garbage);
    stream->WritesDone();
    grpc::ByteBuffer answer;
    EXPECT_FALSE(stream->Read(&answer)) << name;
    EXPECT_THAT(FromGrpcStatus(stream->Finish()), StatusIs(absl::StatusCode::kInvalidArgument))
        << name;
  }
  ASSERT_OK(Hello({}).status());  // it lives
}

TEST_F(ServerTest, AWriteStartsWithItsBeginAndHasAnEnd) {
  fleet_.StartAll();
  const auto stub = Shards();
  const auto write = [&](const std::vector<v1::Frame>& frames) {
    const auto context = Context();
    v1::WriteStateReply reply;
    const auto writer = stub->WriteState(context.get(), &reply);
    for (const v1::Frame& frame : frames) writer->Write(frame);
    writer->WritesDone();
    return FromGrpcStatus(writer->Finish());
  };
  EXPECT_THAT(write({Slices()}), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("begin")));
  EXPECT_THAT(write({}), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("broke off")));
  v1::FrameHeader begin;
  *begin.mutable_write_begin()->mutable_header() = HeaderOf("nobody");
  EXPECT_THAT(write({MakeFrame(begin)}), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(ServerTest, WaitsForItsFleetFile) {
  fleet_.Start(0);
  ASSERT_OK_AND_ASSIGN(const v1::HelloReply waiting, Hello({}));
  EXPECT_FALSE(waiting.serving());
  EXPECT_THAT(RenewSession("m"),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("waits for its fleet file")));
  const auto health = grpc::health::v1::Health::NewStub(fleet_.channel(0));
  grpc::health::v1::HealthCheckResponse answer;
  ASSERT_TRUE(health->Check(Context().get(), {}, &answer).ok());
  EXPECT_EQ(answer.status(), grpc::health::v1::HealthCheckResponse::NOT_SERVING);
  fleet_.WriteFleetFile();
  fleet_.WaitUntilServing(0);
  EXPECT_THAT(RenewSession("m"), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(ServerTest, RefusesToStartWhereItCannotServe) {
  fleet_.StartAll();
  EXPECT_THAT(Server::Start(fleet_.Options(0)).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("data directory")));
  const auto start = [&](const std::function<void(ServerOptions*)>& change) {
    ServerOptions options = fleet_.Options(0);
    options.data_directory = fleet_.directory() + "/another";
    change(&options);
    return Server::Start(std::move(options)).status();
  };
  EXPECT_THAT(start([&](auto* options) { options->listen = fleet_.server(0).address(); }),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("cannot listen")));
  EXPECT_THAT(start([](auto* options) { options->server_rank = 3; }),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("server rank 3")));
  EXPECT_THAT(start([](auto* options) { options->listen = "0.0.0.0:0"; }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--insecure")));
  EXPECT_THAT(start([](auto* options) { options->devices = {"cuda:0"}; }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"cuda:0\"")));
  EXPECT_THAT(start([](auto* options) { options->address_file = "/no/such/folder/address"; }),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("/no/such/folder")));
}

TEST_F(ServerTest, ReflectionIsServedWhereItIsWanted) {
  const grpc::internal::RpcMethod method(
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
      grpc::internal::RpcMethod::BIDI_STREAMING);
  for (const bool wanted : {false, true}) {
    ServerOptions options = fleet_.Options(0);
    options.reflection = wanted;
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Server> server, Server::Start(std::move(options)));
    const auto channel = grpc::CreateChannel(server->address(), grpc::InsecureChannelCredentials());
    const auto context = Context();
    std::unique_ptr<grpc::ClientReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>> stream(
        grpc::internal::ClientReaderWriterFactory<grpc::ByteBuffer, grpc::ByteBuffer>::Create(
            channel.get(), method, context.get()));
    stream->WritesDone();
    grpc::ByteBuffer answer;
    EXPECT_FALSE(stream->Read(&answer));
    EXPECT_EQ(stream->Finish().error_code(),
              wanted ? grpc::StatusCode::OK : grpc::StatusCode::UNIMPLEMENTED);
  }
}

class PeerTest : public ServerTest {
 protected:
  PeerTest() : ServerTest(2) {}
};

TEST_F(PeerTest, DrainEndsStreamsAndWaitingCallsLongBeforeItsGrace) {
  fleet_.Start(0);
  fleet_.WriteFleetFile();  // server 1 is not there, so a session cannot be announced to it
  fleet_.WaitUntilServing(0);
  const auto context = Context();
  const auto stub = Shards();
  const auto stream = stub->PushGradients(context.get());
  ASSERT_TRUE(stream->Write(Begin("nobody", 1, 1)));
  v1::PushAck ack;
  ASSERT_TRUE(stream->Read(&ack));  // the stream stands
  const auto read_context = Context();
  const auto read = stub->ReadState(read_context.get());
  read->WaitForInitialMetadata();  // and this, between two reads
  const auto steps_context = Context();
  const auto coordinator = Coordinator();
  const auto steps = coordinator->Steps(steps_context.get());
  v1::StepCalls calls;
  calls.add_calls();
  v1::StepAnswers answers;
  ASSERT_TRUE(steps->Write(calls));
  ASSERT_TRUE(steps->Read(&answers));
  auto waiting = std::async(std::launch::async, [&] { return OpenSession("m", 0).status(); });
  v1::ListSessionsRequest request;
  *request.mutable_header() = HeaderOf("m");
  v1::ListSessionsReply sessions;
  while (sessions.sessions().empty()) {
    Coordinator()->ListSessions(Context().get(), request, &sessions);
  }

  const absl::Time begin = absl::Now();
  fleet_.server(0).Shutdown(absl::Seconds(30));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
  EXPECT_THAT(waiting.get(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("shutting down")));
  EXPECT_FALSE(stream->Read(&ack));
  EXPECT_THAT(FromGrpcStatus(stream->Finish()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("shutting down")));
  EXPECT_FALSE(steps->Read(&answers));
  EXPECT_THAT(FromGrpcStatus(steps->Finish()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("shutting down")));
  v1::Frame frame;
  EXPECT_FALSE(read->Read(&frame));
  EXPECT_THAT(FromGrpcStatus(read->Finish()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("shutting down")));
}

TEST_F(PeerTest, SessionsReachAllServersAlsoOneThatMoved) {
  fleet_.StartAll();
  ASSERT_OK_AND_ASSIGN(const v1::OpenSessionReply first, OpenSession("m", 0));
  EXPECT_THAT(first.incarnations(), ::testing::ElementsAre(1, 1));
  fleet_.Stop(1);
  fleet_.Start(1);  // on another port
  fleet_.WriteFleetFile();
  ASSERT_OK_AND_ASSIGN(const v1::OpenSessionReply second, OpenSession("m", 1));
  EXPECT_THAT(second.incarnations(), ::testing::ElementsAre(1, 2));
}

// Whoever starts on a copy of the coordinator's data has a later incarnation: the one it was copied
// from is told so, also where its streams still stand.
TEST_F(PeerTest, ACoordinatorThatWasReplacedEnds) {
  std::promise<absl::Status> ended;
  fleet_.OnFatal([&](const absl::Status& why) { ended.set_value(why); });
  fleet_.StartAll();
  ASSERT_OK(OpenSession("m", 0).status());

  ServerOptions options = fleet_.Options(0);
  options.data_directory += "-copy";
  std::filesystem::copy(fleet_.Options(0).data_directory, options.data_directory,
                        std::filesystem::copy_options::recursive);
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Server> second, Server::Start(std::move(options)));
  FleetFile fleet = fleet_.fleet();
  fleet.servers[0] = second->address();
  ASSERT_OK(fleet.Write(fleet_.Options(0).fleet_file));

  const auto channel = grpc::CreateChannel(second->address(), grpc::InsecureChannelCredentials());
  v1::OpenSessionRequest request;
  *request.mutable_header() = HeaderOf("m");
  request.set_instance("another instance");
  v1::OpenSessionReply reply;
  ASSERT_OK(FromGrpcStatus(
      v1::Coordinator::NewStub(channel)->OpenSession(Context().get(), request, &reply)));
  const absl::Status why = ended.get_future().get();
  EXPECT_THAT(why, StatusIs(absl::StatusCode::kFailedPrecondition,
                            AllOf(HasSubstr("server 1"), HasSubstr("was replaced by"))));
}

TEST_F(PeerTest, OnlyServerZeroCoordinates) {
  fleet_.StartAll();
  const absl::Status refused = RenewSession("m", /*rank=*/1);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("server 0")));
  EXPECT_EQ(ReasonOf(refused), v1::NOT_COORDINATOR);
}

TEST_F(PeerTest, StrangersAreRefused) {
  fleet_.StartAll();
  v1::HelloRequest request;
  request.set_server_rank(1);
  ASSERT_OK_AND_ASSIGN(const v1::HelloReply hello, Hello(request, 1));
  v1::PeerMessage good;
  good.mutable_hello()->set_optimizer("m");
  good.mutable_hello()->set_coordinator_incarnation(1);
  good.mutable_hello()->set_fleet_hash(fleet_.fleet().Hash());
  good.mutable_hello()->set_server_rank(1);
  good.mutable_hello()->set_numeric_fingerprint(hello.numeric_fingerprint());
  const auto follow = [&](const v1::PeerMessage& message) {
    const auto context = Context();
    const auto stub = v1::Peer::NewStub(fleet_.channel(1));
    const auto stream = stub->Follow(context.get());
    stream->Write(message);
    stream->WritesDone();
    v1::PeerReply reply;
    while (stream->Read(&reply)) {
    }
    return FromGrpcStatus(stream->Finish());
  };
  EXPECT_OK(follow(good));
  v1::PeerMessage bits = good;
  bits.mutable_hello()->set_numeric_fingerprint(hello.numeric_fingerprint() + 1);
  EXPECT_THAT(follow(bits), StatusIs(absl::StatusCode::kFailedPrecondition,
                                     AllOf(HasSubstr("server 1"), HasSubstr("server 0"),
                                           HasSubstr("--numerics=portable"))));
  v1::PeerMessage fleet = good;
  fleet.mutable_hello()->set_fleet_hash("12345678");
  EXPECT_EQ(ReasonOf(follow(fleet)), v1::FLEET_MISMATCH);
  v1::PeerMessage rank = good;
  rank.mutable_hello()->set_server_rank(0);
  EXPECT_EQ(ReasonOf(follow(rank)), v1::FLEET_MISMATCH);
  v1::PeerMessage older = good;
  older.mutable_hello()->set_coordinator_incarnation(0);
  EXPECT_THAT(follow(older),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("replaced")));
  EXPECT_THAT(follow({}), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace shardstep
