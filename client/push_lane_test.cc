#include "shardstep/client/push_lane.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "shardstep/client/fake_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// One parameter of 300,000 floats (1.2 MB: three frames) and one of 4, on one server.
class PushLaneTest : public testing::Test {
 protected:
  PushLaneTest()
      : index_(std::make_shared<const OptimizerIndex>(
            Describe({{"big", DType::kFloat32, {300000}, Whole{0}},
                      {"small", DType::kFloat32, {4}, Whole{0}}},
                     1))),
        connection_(index_, 1),
        server_(*connection_.servers[0]),
        lane_(std::make_unique<PushLane>(&connection_, 0, index_, FakePolicy(&timer_))),
        big_(300000),
        small_(4, 2.5f) {
    std::iota(big_.begin(), big_.end(), 1.0f);
  }

  void Push(uint64_t sequence, uint64_t lineage = 0) {
    v1::Begin begin;
    begin.mutable_header()->set_lineage(lineage);
    begin.mutable_header()->set_sequence(sequence);
    begin.mutable_header()->set_session(9);
    lane_->Begin(begin);
    AddTensor(sequence, 0, MakeTensorView(big_.data(), {300000}));
    AddTensor(sequence, 1, MakeTensorView(small_.data(), {4}));
    lane_->End(sequence, "\x03");
  }

  void AddTensor(uint64_t sequence, int shard, const TensorView& view) {
    std::vector<OutgoingSlice> slices;
    CutBlock(*index_, shard, 0, {WholeRegion(view.sizes), view}, &slices);
    lane_->Add(sequence, std::move(slices));
  }

  absl::Status Await(uint64_t last) {
    return lane_->AwaitAcks(last, timer_.Now() + absl::Seconds(5));
  }

  void ExpectAll(const ReceivedTensors& received) {
    EXPECT_EQ(received.shards.at(0),
              std::string(reinterpret_cast<const char*>(big_.data()), big_.size() * 4));
    EXPECT_EQ(received.shards.at(1),
              std::string(reinterpret_cast<const char*>(small_.data()), small_.size() * 4));
    EXPECT_EQ(received.end.touched(), "\x03");
  }

  FakeTimer timer_;
  std::shared_ptr<const OptimizerIndex> index_;
  MockConnection connection_;
  FakeServer& server_;
  std::unique_ptr<PushLane> lane_;
  std::vector<float> big_;
  std::vector<float> small_;
};

TEST_F(PushLaneTest, SendsEverythingOnceAndIsAcknowledged) {
  Push(1);
  EXPECT_OK(Await(1));
  ASSERT_THAT(server_.received, SizeIs(1));
  ExpectAll(server_.received[0]);
  EXPECT_EQ(server_.received[0].max_payload, 512u << 10);
  EXPECT_EQ(server_.streams, 1);
}

TEST_F(PushLaneTest, FramesAliasTheUsersMemory) {
  std::vector<OutgoingSlice> slices;
  CutBlock(*index_, 0, 0, {WholeRegion({300000}), MakeTensorView(big_.data(), {300000})}, &slices);
  ASSERT_THAT(slices, SizeIs(3));
  EXPECT_EQ(slices[0].pieces[0].data(), reinterpret_cast<const char*>(big_.data()));
  EXPECT_EQ(slices[0].gathered, nullptr);
}

TEST_F(PushLaneTest, ABrokenStreamIsReopenedAndThePushSentAgainAsTheSameFrames) {
  server_.break_after = 3;
  Push(1);
  EXPECT_THAT(server_.received, SizeIs(0));
  EXPECT_OK(Await(1));
  ASSERT_THAT(server_.received, SizeIs(1));
  ExpectAll(server_.received[0]);
  EXPECT_EQ(server_.streams, 2);
}

TEST_F(PushLaneTest, AServerWithoutMemoryGetsThePushAgainAfterItsDelay) {
  v1::ErrorDetail detail;
  detail.set_retry_delay_ms(900);
  server_.answers = {MakeError(absl::StatusCode::kResourceExhausted, "no memory", detail)};
  Push(1);
  EXPECT_OK(Await(1));
  EXPECT_THAT(timer_.slept, ElementsAre(absl::Milliseconds(900)));
  ASSERT_THAT(server_.received, SizeIs(2));
  EXPECT_EQ(server_.received[0].frame_checksums, server_.received[1].frame_checksums);
}

TEST_F(PushLaneTest, RepeatSendsTheSameFramesWithTheDigestOfTheFirstTime) {
  Push(1);
  Push(2);
  EXPECT_OK(Await(2));
  lane_->Repeat(1, 1);
  EXPECT_OK(Await(2));
  ASSERT_THAT(server_.received, SizeIs(3));
  EXPECT_EQ(server_.received[2].begin.header().sequence(), 1u);
  EXPECT_EQ(server_.received[2].begin.digest(), server_.received[0].end.digest());
  EXPECT_EQ(server_.received[2].frame_checksums, server_.received[0].frame_checksums);
}

TEST_F(PushLaneTest, ChangedBytesAreNotPushedAgain) {
  Push(1);
  EXPECT_OK(Await(1));
  small_[2] = 7.0f;
  lane_->Repeat(1, 1);
  EXPECT_THAT(Await(1), StatusIs(absl::StatusCode::kFailedPrecondition,
                                 HasSubstr("push 1 of \"digits\": the gradient has changed")));
  EXPECT_THAT(server_.received, SizeIs(1));
  lane_->Forget(2);
  Push(2);
  EXPECT_OK(Await(2));
  ExpectAll(server_.received.back());
}

TEST_F(PushLaneTest, AServerOfAnOlderLineageIsCalledAnewUntilItsSuccessorAnswers) {
  v1::ErrorDetail detail;
  detail.set_reason(v1::ROLLED_BACK);
  detail.set_lineage(4);
  server_.answers = {MakeError(absl::StatusCode::kFailedPrecondition, "lineage 4", detail)};
  Push(1, /*lineage=*/5);
  EXPECT_OK(Await(1));
  EXPECT_EQ(server_.streams, 2);
  detail.set_lineage(6);
  server_.answers = {MakeError(absl::StatusCode::kFailedPrecondition, "lineage 6", detail)};
  Push(2, /*lineage=*/5);
  EXPECT_EQ(ReasonOf(Await(2)), v1::ROLLED_BACK);
}

TEST_F(PushLaneTest, AServerThatRefusesIsReportedWithItsWords) {
  server_.answers = {
      MakeError(absl::StatusCode::kFailedPrecondition, "session 9 was replaced", v1::FENCED)};
  Push(1);
  EXPECT_THAT(Await(1), StatusIs(absl::StatusCode::kFailedPrecondition, "session 9 was replaced"));
}

TEST_F(PushLaneTest, AServerThatStaysAwayIsReportedWithAddressAttemptsAndTime) {
  server_.answers.assign(
      100, absl::UnavailableError("Failed to connect to remote host: Connection refused"));
  Push(1);
  EXPECT_THAT(Await(1), StatusIs(absl::StatusCode::kUnavailable,
                                 "server 0 at 127.0.0.1:7400: connection refused, 7 attempts in "
                                 "5.0 s"));
}

TEST_F(PushLaneTest, ForgetReturnsOnlyWhenTheTransportHasLetGo) {
  server_.hold_messages = true;
  Push(1);
  EXPECT_OK(Await(1));
  // The fake holds what it got until its stream is gone: Forget has to close it.
  lane_->Forget(2);
  EXPECT_EQ(server_.streams, 1);
  server_.hold_messages = false;
  Push(2);
  EXPECT_OK(Await(2));
  EXPECT_EQ(server_.streams, 2);
}

TEST_F(PushLaneTest, WhatIsThereLeavesTogetherAndWaitsForNothingMore) {
  v1::Begin begin;
  begin.mutable_header()->set_sequence(1);
  lane_->Begin(begin);
  EXPECT_EQ(server_.messages, 0);
  AddTensor(1, 1, MakeTensorView(small_.data(), {4}));
  EXPECT_EQ(server_.messages, 2);
  EXPECT_EQ(server_.departures, 1);
  lane_->End(1, "\x02");
  EXPECT_EQ(server_.messages, 3);
  EXPECT_EQ(server_.departures, 2);
  // Broken off and sent again: all of it is there.
  server_.break_after = 0;
  lane_->Repeat(1, 1);
  EXPECT_OK(Await(1));
  EXPECT_EQ(server_.messages, 3 + 1 + 3);
  EXPECT_EQ(server_.departures, 2 + 1);
}

TEST_F(PushLaneTest, APushThatHasNothingForTheServerDoesNotReachIt) {
  v1::Begin begin;
  begin.mutable_header()->set_sequence(1);
  lane_->Begin(begin);
  lane_->LeaveOut(1);
  EXPECT_OK(Await(1));
  EXPECT_EQ(server_.messages, 0);
  // Dropped by one thread, then ended by another.
  lane_->Abandon(1);
  lane_->End(1, "");
  Push(2);
  EXPECT_OK(Await(2));
  ASSERT_THAT(server_.received, SizeIs(1));
  EXPECT_EQ(server_.received[0].begin.header().sequence(), 2u);
}

TEST_F(PushLaneTest, AnAbandonedPushLeavesTheOthersAndItsSequence) {
  Push(1);
  v1::Begin begin;
  begin.mutable_header()->set_sequence(2);
  lane_->Begin(begin);
  AddTensor(2, 0, MakeTensorView(big_.data(), {300000}));
  lane_->Abandon(2);
  EXPECT_OK(Await(1));
  Push(2);
  EXPECT_OK(Await(2));
  ASSERT_THAT(server_.received, SizeIs(2));
  EXPECT_EQ(server_.received[1].begin.digest(), 0u);
  ExpectAll(server_.received[1]);
}

struct SlowCalls {
  std::atomic<int> made{0};
  std::atomic<int> outlived{0};  // ended after their stream
};

// Takes its time over each message.
class SlowStream final : public ByteStream {
 public:
  SlowStream(StreamListener* listener, SlowCalls* calls) : listener_(listener), calls_(calls) {}
  ~SlowStream() override {
    *alive_ = false;
    listener_->OnClosed(absl::CancelledError(""));
  }

  void Send(grpc::ByteBuffer&& message, bool /*another_follows*/) override {
    StreamListener* const listener = listener_;
    SlowCalls* const calls = calls_;
    const std::shared_ptr<std::atomic<bool>> alive = alive_;
    message.Clear();
    ++calls->made;
    for (int i = 0; i < 20; ++i) std::this_thread::yield();
    if (*alive) return listener->OnSent();
    ++calls->outlived;
  }
  void CloseSending() override {}
  void Cancel() override {}

 private:
  StreamListener* const listener_;
  SlowCalls* const calls_;
  const std::shared_ptr<std::atomic<bool>> alive_ = std::make_shared<std::atomic<bool>>(true);
};

class SlowConnection : public MockConnection {
 public:
  using MockConnection::MockConnection;
  std::unique_ptr<ByteStream> StartPush(int /*server_rank*/, StreamListener* listener) override {
    return std::make_unique<SlowStream>(listener, &calls);
  }
  SlowCalls calls;
};

TEST_F(PushLaneTest, APushThatAnotherThreadFillsMayBeAbandoned) {
  testing::NiceMock<SlowConnection> connection(index_, 1);
  PushLane lane(&connection, 0, index_, FakePolicy(&timer_));
  for (uint64_t sequence = 1; sequence <= 200; ++sequence) {
    v1::Begin begin;
    begin.mutable_header()->set_sequence(sequence);
    lane.Begin(begin);
    const int made = connection.calls.made;
    std::thread filler([&] {
      for (int i = 0; i < 10; ++i) {
        std::vector<OutgoingSlice> slices;
        CutBlock(*index_, 1, 0, {WholeRegion({4}), MakeTensorView(small_.data(), {4})}, &slices);
        lane.Add(sequence, std::move(slices));
      }
    });
    while (connection.calls.made == made) std::this_thread::yield();
    lane.Abandon(sequence);
    filler.join();
  }
  EXPECT_EQ(connection.calls.outlived, 0);
}

}  // namespace
}  // namespace shardstep::internal
