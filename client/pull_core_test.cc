#include "shardstep/client/pull_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "shardstep/client/fake_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/definition.h"
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
  reader().scripts = {Gone(), Gone(), ReadOf(Snapshot(7, 14), {FloatSlice(0, 0, {5, 6, 7, 8})})};
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

TEST_F(PullCoreTest, StateHasTensorsScalarsAndTheGroupsOfItsVersion) {
  v1::Snapshot snapshot = Snapshot(6, 9);
  snapshot.set_kind(v1::EVERYTHING);
  OptionMap options = index_->description().groups[0].options;
  options.Set("lr", 0.25);
  *snapshot.add_groups()->mutable_options() = OptionMapToProto(options);
  EXPECT_CALL(*connection_, OpenSnapshot).WillOnce(testing::Return(Opened(snapshot)));
  v1::Scalars scalars;
  v1::Scalars::Scalar& step = *scalars.add_scalars();
  step.set_tensor(2);
  step.set_value(9.0);
  reader().scripts = {
      ReadOf(snapshot, {FloatSlice(0, 0, {1, 2}, 1), FloatSlice(0, 2, {3, 4}, 1)}, scalars)};
  ASSERT_OK_AND_ASSIGN(const OptimizerState state, pull_->State(0, absl::Minutes(1)));
  EXPECT_EQ(state.version, 9u);
  EXPECT_EQ(std::get<double>(state.state.at("w").at("step")), 9.0);
  const HostTensor& buffer = std::get<HostTensor>(state.state.at("w").at("momentum_buffer"));
  EXPECT_EQ(buffer.bytes, std::vector<char>([] {
              const float values[] = {1, 2, 3, 4};
              const char* bytes = reinterpret_cast<const char*>(values);
              return std::vector<char>(bytes, bytes + sizeof(values));
            }()));
  EXPECT_EQ(*state.param_groups[0].options.Find("lr"), OptionValue(0.25));
  EXPECT_THAT(state.param_groups[0].params, ElementsAre("w"));
}

TEST_F(PullCoreTest, StateThatLacksElementsIsRefused) {
  v1::Snapshot snapshot = Snapshot(6, 9);
  *snapshot.add_groups()->mutable_options() =
      OptionMapToProto(index_->description().groups[0].options);
  ON_CALL(*connection_, OpenSnapshot).WillByDefault(testing::Return(Opened(snapshot)));
  reader().scripts = {ReadOf(snapshot, {FloatSlice(0, 0, {1, 2}, 1)})};
  EXPECT_THAT(pull_->State(0, absl::Minutes(1)),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("2 of 4 elements")));
}

}  // namespace
}  // namespace shardstep::internal
