#include "shardstep/client/pull_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "shardstep/client/fake_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/pages.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

using ::testing::_;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::NiceMock;
using ::testing::SizeIs;

// A parameter of four floats on one server.
class PullCoreTest : public testing::Test {
 protected:
  PullCoreTest()
      : index_(std::make_shared<const OptimizerIndex>(
            Describe({{"w", DType::kFloat32, {4}, Whole{0}}}, 1))) {
    auto connection = std::make_unique<NiceMock<MockConnection>>(index_, 1);
    connection_ = connection.get();
    ON_CALL(*connection_, CloseSnapshot)
        .WillByDefault([this](const v1::CloseSnapshotRequest& request, absl::Time) {
          closed_.push_back(request.snapshot());
          return v1::CloseSnapshotReply();
        });
    v1::CallHeader header;
    header.set_optimizer("digits");
    pull_ = std::make_unique<PullCore>(MakeCore(std::move(connection), &timer_), header, index_);
    into_.name = "w";
    into_.value = MakeTensorView(values_, {4});
  }

  v1::Snapshot Snapshot(uint64_t id, uint64_t version) {
    v1::Snapshot snapshot;
    snapshot.set_snapshot(id);
    snapshot.set_version(version);
    snapshot.set_lineage(1);
    snapshot.set_plan_id(index_->plan_id());
    snapshot.set_lease_ms(30000);
    snapshot.set_kind(v1::PARAMETERS);
    return snapshot;
  }

  static v1::OpenSnapshotReply Opened(const v1::Snapshot& snapshot) {
    v1::OpenSnapshotReply reply;
    *reply.mutable_snapshot() = snapshot;
    return reply;
  }

  static FakeReadServer::Script Gone() {
    FakeReadServer::Script gone;
    gone.status =
        MakeError(absl::StatusCode::kAborted, "the snapshot's lease ended", v1::SNAPSHOT_GONE);
    return gone;
  }

  FakeReadServer& reader() { return connection_->readers[0]; }

  FakeTimer timer_;
  std::shared_ptr<const OptimizerIndex> index_;
  NiceMock<MockConnection>* connection_ = nullptr;
  std::vector<uint64_t> closed_;
  float values_[4] = {};
  NamedTensor into_;
  std::unique_ptr<PullCore> pull_;  // last: it closes what it holds
};

TEST_F(PullCoreTest, ReadsWhatTheStepHeldAndKeepsItForTheNextPull) {
  pull_->Offer(Snapshot(5, 12));
  EXPECT_CALL(*connection_, OpenSnapshot).Times(0);
  for (int i = 0; i < 2; ++i) {
    reader().scripts = {ReadOf(Snapshot(5, 12), {FloatSlice(0, 0, {1, 2, 3, 4})})};
    ASSERT_OK_AND_ASSIGN(const PullResult result, pull_->Pull({into_}, 12, absl::Minutes(1)));
    EXPECT_EQ(result.version, 12u);
    EXPECT_THAT(values_, ElementsAre(1, 2, 3, 4));
  }
  EXPECT_THAT(closed_, SizeIs(0));
  EXPECT_THAT(pull_->TakeClosed(), ElementsAre(5));
}

TEST_F(PullCoreTest, OpensAndClosesASnapshotWhereNoStepHeldOne) {
  EXPECT_CALL(*connection_, OpenSnapshot)
      .WillOnce([&](const v1::OpenSnapshotRequest& request, absl::Time) {
        EXPECT_EQ(request.at_least_version(), 7u);
        EXPECT_EQ(request.kind(), v1::PARAMETERS);
        return Opened(Snapshot(6, 9));
      });
  reader().scripts = {ReadOf(Snapshot(6, 9), {FloatSlice(0, 0, {1, 2, 3, 4})})};
  ASSERT_OK_AND_ASSIGN(const PullResult result, pull_->Pull({into_}, 7, absl::Minutes(1)));
  EXPECT_EQ(result.version, 9u);
  EXPECT_THAT(closed_, ElementsAre(6));
}

TEST_F(PullCoreTest, ASnapshotThatIsGoneIsReplacedAndReadFromItsBeginning) {
  pull_->Offer(Snapshot(5, 12));
  // It has begun when it is gone.
  FakeReadServer::Script half = ReadOf(Snapshot(5, 12), {FloatSlice(0, 0, {1, 2, 3, 4})});
  half.headers.resize(2);
  half.payloads.resize(2);
  half.status = Gone().status;
  reader().scripts = {half, Gone(), ReadOf(Snapshot(7, 14), {FloatSlice(0, 0, {5, 6, 7, 8})})};
  EXPECT_CALL(*connection_, OpenSnapshot)
      .WillOnce(testing::Return(Opened(Snapshot(6, 13))))
      .WillOnce(testing::Return(Opened(Snapshot(7, 14))));
  ASSERT_OK_AND_ASSIGN(const PullResult result, pull_->Pull({into_}, 12, absl::Minutes(1)));
  EXPECT_EQ(result.version, 14u);
  EXPECT_THAT(values_, ElementsAre(5, 6, 7, 8));
  ASSERT_THAT(reader().requests, SizeIs(3));
  EXPECT_EQ(reader().requests[2].skip_bytes(), 0u);
}

TEST_F(PullCoreTest, AnOlderSnapshotThanAskedForIsNotRead) {
  pull_->Offer(Snapshot(5, 12));
  EXPECT_CALL(*connection_, OpenSnapshot).WillOnce(testing::Return(Opened(Snapshot(6, 13))));
  reader().scripts = {ReadOf(Snapshot(6, 13), {FloatSlice(0, 0, {1, 2, 3, 4})})};
  ASSERT_OK_AND_ASSIGN(const PullResult result, pull_->Pull({into_}, 13, absl::Minutes(1)));
  EXPECT_EQ(result.version, 13u);
}

TEST_F(PullCoreTest, TheDeadlineEndsTheWaitForAVersionWithWords) {
  v1::OpenSnapshotReply not_yet;
  not_yet.set_current_version(11);
  ON_CALL(*connection_, OpenSnapshot).WillByDefault(testing::Return(not_yet));
  EXPECT_THAT(pull_->Pull({into_}, 12, absl::Minutes(1)),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       "pull of \"digits\": waited 60.0 s for version 12, the current one is 11"));
}

TEST_F(PullCoreTest, WhatIsAskedForWronglyIsSaidBeforeAnyCall) {
  EXPECT_CALL(*connection_, OpenSnapshot).Times(0);
  NamedTensor misspelt = into_;
  misspelt.name = "v";
  EXPECT_THAT(pull_->Pull({misspelt}, 0, absl::Minutes(1)), StatusIs(absl::StatusCode::kNotFound));
  NamedTensor other = into_;
  other.value.sizes = {2, 2};
  EXPECT_THAT(pull_->Pull({other}, 0, absl::Minutes(1)),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(pull_->Pull({into_, into_}, 0, absl::Minutes(1)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("named twice")));
}

TEST_F(PullCoreTest, ASnapshotOfAnotherPlanIsCutByItsOwn) {
  const OptimizerDescription grown =
      Describe({{"v", DType::kFloat32, {2}, Whole{0}}, {"w", DType::kFloat32, {4}, Whole{0}}}, 1);
  v1::Snapshot snapshot = Snapshot(6, 9);
  snapshot.set_plan_id(grown.plan.plan_id);
  EXPECT_CALL(*connection_, OpenSnapshot).WillOnce(testing::Return(Opened(snapshot)));
  EXPECT_CALL(*connection_, Describe).WillOnce([&](const v1::DescribeRequest& request, absl::Time) {
    EXPECT_EQ(request.snapshot(), 6u);
    v1::DescribeReply reply;
    *reply.mutable_description() =
        PagedMessage(DescriptionToProto(grown).SerializeAsString()).page(0).value();
    return reply;
  });
  reader().scripts = {ReadOf(snapshot, {FloatSlice(1, 0, {1, 2, 3, 4})})};
  ASSERT_OK(pull_->Pull({into_}, 0, absl::Minutes(1)));
  EXPECT_THAT(values_, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(pull_->index()->parameters(), SizeIs(2));
  EXPECT_THAT(reader().requests[0].selector().tensors(), SizeIs(1));
}

TEST_F(PullCoreTest, AnotherHistoryIsAskedForAndWhatAStepHeldIsNotReadAnyMore) {
  pull_->Offer(Snapshot(5, 12));
  pull_->Adopt(/*lineage=*/2, index_);
  EXPECT_CALL(*connection_, OpenSnapshot)
      .WillOnce([&](const v1::OpenSnapshotRequest& request, absl::Time) {
        EXPECT_EQ(request.header().lineage(), 2u);
        return Opened(Snapshot(6, 13));
      });
  reader().scripts = {ReadOf(Snapshot(6, 13), {FloatSlice(0, 0, {1, 2, 3, 4})})};
  ASSERT_OK(pull_->Pull({into_}, 0, absl::Minutes(1)));
  EXPECT_EQ(reader().requests[0].header().lineage(), 0u);
  EXPECT_THAT(pull_->TakeClosed(), ElementsAre(5));
}

}  // namespace
}  // namespace shardstep::internal
