// What changes other than steps, and changes of others, mean for a handle.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "shardstep/client/fake_fleet.h"
#include "shardstep/client/optimizer_core.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/sharding/status_macros.h"
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

// Trainer rank 0 of "digits": "a" (8 floats over two servers); "b" (2, on server 1) may be added.
class OptimizerChangesTest : public testing::Test {
 protected:
  OptimizerChangesTest() : before_(Describe({A()}, 2)), after_(Describe({A(), B()}, 2)) {
    after_.definition.groups = {{before_.groups[0].options, {"a"}},
                                {before_.groups[0].options, {"b"}}};
    after_.groups = after_.definition.groups;
    live_ = before_;
    auto connection = std::make_unique<NiceMock<MockConnection>>(
        std::make_shared<const OptimizerIndex>(after_), 2);
    connection_ = connection.get();
    client_ = MakeCore(std::move(connection), &timer_);
    ON_CALL(*connection_, OpenSession).WillByDefault([this](const auto&, absl::Time) {
      v1::OpenSessionReply opened;
      opened.set_session(9);
      opened.set_lease_ms(30000);
      opened.set_trainer_state(trainer_state_);
      opened.set_last_version(15);
      return opened;
    });
    ON_CALL(*connection_, CloseSession).WillByDefault(testing::Return(v1::CloseSessionReply()));
    ON_CALL(*connection_, CloseSnapshot).WillByDefault(testing::Return(v1::CloseSnapshotReply()));
    ON_CALL(*connection_, Describe).WillByDefault([this](const auto& request, absl::Time) {
      const OptimizerDescription& of = request.staging() != 0 ? after_ : live_;
      v1::DescribeReply reply;
      reply.set_version(version_);
      reply.set_lineage(lineage_);
      *reply.mutable_description() =
          PagedMessage(DescriptionToProto(of).SerializeAsString()).page(request.page()).value();
      return absl::StatusOr<v1::DescribeReply>(reply);
    });
    ON_CALL(*connection_, Propose).WillByDefault([this](const auto& request, absl::Time) {
      proposals_.push_back(request);
      absl::StatusOr<v1::ProposeReply> reply = answers_.front();
      answers_.pop_front();
      return reply;
    });
    ON_CALL(*connection_, Step).WillByDefault([this](const auto& request, absl::Time) {
      steps_.push_back(request);
      if (!step_errors_.empty()) {
        const absl::Status error = step_errors_.front();
        step_errors_.pop_front();
        return absl::StatusOr<v1::StepReply>(error);
      }
      v1::StepReply reply;
      reply.mutable_committed()->set_version(++version_);
      reply.mutable_committed()->set_lineage(lineage_);
      reply.mutable_committed()->set_durable_version(durable_);
      return absl::StatusOr<v1::StepReply>(reply);
    });
    ON_CALL(*connection_, OpenSnapshot).WillByDefault([this](const auto& request, absl::Time) {
      snapshots_.push_back(request);
      if (!snapshot_errors_.empty()) {
        const absl::Status error = snapshot_errors_.front();
        snapshot_errors_.pop_front();
        return absl::StatusOr<v1::OpenSnapshotReply>(error);
      }
      v1::OpenSnapshotReply reply;
      v1::Snapshot& snapshot = *reply.mutable_snapshot();
      snapshot.set_snapshot(3);
      snapshot.set_version(version_);
      snapshot.set_lineage(lineage_);
      snapshot.set_plan_id(live_.plan.plan_id);
      snapshot.set_lease_ms(30000);
      for (int rank : {0, 1}) {
        connection_->readers[rank].scripts = {
            ReadOf(snapshot, {FloatSlice(rank, 0, {1, 2, 3, 4})})};
      }
      return absl::StatusOr<v1::OpenSnapshotReply>(reply);
    });
    DescribedOptimizer described;
    described.description = before_;
    described.version = version_;
    described.lineage = lineage_;
    core_ = std::make_unique<OptimizerCore>(
        client_, Session::Open(client_, "digits", 0, {}, timer_.Now() + absl::Seconds(1)).value(),
        std::move(described), DeclaredRegions(1));
  }

  static ParameterShape A() { return {"a", DType::kFloat32, {8}, Chunk{0, {{0}, {1}}}}; }
  static ParameterShape B() { return {"b", DType::kFloat32, {2}, Whole{1}}; }

  static v1::ProposeReply Staging(uint64_t id) {
    v1::ProposeReply reply;
    reply.mutable_staging()->set_staging(id);
    reply.mutable_staging()->set_whole_tensors(true);
    return reply;
  }
  static v1::ProposeReply Done(uint64_t version, uint64_t lineage) {
    v1::ProposeReply reply;
    reply.mutable_done()->set_version(version);
    reply.mutable_done()->set_lineage(lineage);
    return reply;
  }
  static absl::Status RolledBack(uint64_t lineage, uint64_t version) {
    v1::ErrorDetail detail;
    detail.set_reason(v1::ROLLED_BACK);
    detail.set_lineage(lineage);
    detail.mutable_roll_back()->set_lineage(lineage);
    detail.mutable_roll_back()->set_version(version);
    detail.mutable_roll_back()->set_trainer_state("position 10");
    return MakeError(absl::StatusCode::kFailedPrecondition, "digits was restored", detail);
  }
  static absl::Status PlanChanged() {
    return MakeError(absl::StatusCode::kFailedPrecondition, "another plan", v1::PLAN_CHANGED);
  }

  ParameterGroup GroupB() {
    NamedTensor b;
    b.name = "b";
    b.value = MakeTensorView(b_, {2});
    b.spec = Whole{1};
    return {{b}, {{"lr", 0.5}}};
  }

  absl::Status Push(const std::string& name, float* data, Shape sizes) {
    SHARDSTEP_ASSIGN_OR_RETURN(const std::shared_ptr<PushCore> push, core_->StartPush({}));
    SHARDSTEP_RETURN_IF_ERROR(
        push->pushes().Add(push->id(), name, {MakeTensorView(data, std::move(sizes))}, nullptr));
    return push->pushes().Finish(push->id());
  }

  absl::StatusOr<PullResult> Pull() {
    NamedTensor a;
    a.name = "a";
    a.value = MakeTensorView(a_, {8});
    return core_->Pull({a}, {});
  }

  FakeServer& server(int rank) { return *connection_->servers[rank]; }

  FakeTimer timer_;
  OptimizerDescription before_;
  OptimizerDescription after_;
  OptimizerDescription live_;
  uint64_t version_ = 16;
  uint64_t lineage_ = 1;
  uint64_t durable_ = 0;
  std::string trainer_state_ = "position 15";
  NiceMock<MockConnection>* connection_ = nullptr;
  std::shared_ptr<const ClientCore> client_;
  std::deque<absl::StatusOr<v1::ProposeReply>> answers_;
  std::deque<absl::Status> step_errors_;
  std::deque<absl::Status> snapshot_errors_;
  std::vector<v1::ProposeRequest> proposals_;
  std::vector<v1::StepRequest> steps_;
  std::vector<v1::OpenSnapshotRequest> snapshots_;
  float a_[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  float b_[2] = {9, 10};
  std::unique_ptr<OptimizerCore> core_;
};

TEST_F(OptimizerChangesTest, AnAddedGroupStandsBehindTheOthersAndPushesStay) {
  ASSERT_OK(Push("a", a_, {8}));
  answers_ = {Staging(6), Done(17, 1)};
  live_ = after_;
  version_ = 17;
  ASSERT_OK(core_->AddParamGroup(GroupB(), {}));
  ASSERT_THAT(core_->parameters(), SizeIs(2));
  EXPECT_EQ(core_->parameters()[1].name, "b");
  EXPECT_THAT(core_->param_groups(), SizeIs(2));
  EXPECT_EQ(core_->version(), 17u);
  // The change says what the group sets itself; its values went where the staging's plan says.
  v1::AddParamGroupChange change;
  ASSERT_TRUE(change.ParseFromString(proposals_[0].add_param_group().data()));
  ASSERT_THAT(change.options(), SizeIs(1));
  EXPECT_EQ(change.options(0).name(), "lr");
  ASSERT_THAT(change.parameters(), SizeIs(1));
  EXPECT_EQ(proposals_[0].header().lineage(), 1u);
  const ReceivedTensors& written = server(1).received.back();
  EXPECT_EQ(written.write_begin.staging(), 6u);
  EXPECT_EQ(written.shards.at(2), std::string(reinterpret_cast<const char*>(b_), 8));

  ASSERT_OK(Push("b", b_, {2}));
  ASSERT_OK(core_->Step({}));
  EXPECT_EQ(steps_[0].first_push(), 1u);
  EXPECT_EQ(steps_[0].last_push(), 2u);
  EXPECT_EQ(steps_[0].header().plan_id(), after_.plan.plan_id);
  ASSERT_THAT(server(0).received, SizeIs(3));  // push 1, the write, push 2
  EXPECT_EQ(server(0).received[2].begin.header().plan_id(), after_.plan.plan_id);
  EXPECT_EQ(server(0).received[2].end.touched(), std::string("\x02"));
}

TEST_F(OptimizerChangesTest, AGroupThatIsThereAlreadyNeedsNoValues) {
  answers_ = {Done(17, 1)};
  live_ = after_;
  ASSERT_OK(core_->AddParamGroup(GroupB(), {}));
  EXPECT_EQ(server(1).streams, 0);
  EXPECT_THAT(core_->parameters(), SizeIs(2));
}

TEST_F(OptimizerChangesTest, WhatCannotBeAGroupIsRefusedBeforeAnyCall) {
  EXPECT_CALL(*connection_, Propose).Times(0);
  ParameterGroup bad = GroupB();
  bad.options.Set("lr", -1.0);
  EXPECT_THAT(core_->AddParamGroup(bad, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, "Invalid learning rate: -1.0"));
  bad = GroupB();
  bad.parameters[0].local_shards.resize(1);
  EXPECT_THAT(core_->AddParamGroup(bad, {}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("takes whole tensors")));
  ASSERT_OK_AND_ASSIGN(const std::shared_ptr<PushCore> push, core_->StartPush({}));
  EXPECT_THAT(core_->AddParamGroup(GroupB(), {}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       "push 1 of \"digits\" is open; call Finish before AddParamGroup"));
}

TEST_F(OptimizerChangesTest, APlanThatAnotherChangedIsFollowedSilently) {
  ASSERT_OK(core_->SetOption(0, "lr", 0.25));
  ASSERT_OK(Push("a", a_, {8}));
  live_ = after_;
  step_errors_ = {PlanChanged()};
  ASSERT_OK(core_->Step({}));
  ASSERT_THAT(steps_, SizeIs(2));
  EXPECT_EQ(steps_[0].header().plan_id(), before_.plan.plan_id);
  EXPECT_EQ(steps_[1].header().plan_id(), after_.plan.plan_id);
  EXPECT_EQ(steps_[1].header().sequence(), steps_[0].header().sequence());
  EXPECT_EQ(*core_->param_groups()[0].options.Find("lr"), OptionValue(0.25));
  EXPECT_THAT(core_->parameters(), SizeIs(2));
}

TEST_F(OptimizerChangesTest, APushThatMeetsAnotherPlanIsSentAgainUnderIt) {
  server(1).answers = {PlanChanged()};
  live_ = after_;
  ASSERT_OK(Push("a", a_, {8}));
  ASSERT_OK(core_->Step({}));
  ASSERT_THAT(server(1).received, SizeIs(2));
  EXPECT_EQ(server(1).received[0].begin.header().plan_id(), before_.plan.plan_id);
  EXPECT_EQ(server(1).received[1].begin.header().plan_id(), after_.plan.plan_id);
  EXPECT_EQ(server(1).received[1].begin.header().sequence(), 1u);
  EXPECT_THAT(server(0).received, SizeIs(1));
}

TEST_F(OptimizerChangesTest, APullReportsAReplacedHistoryOnceAndGoesOn) {
  ASSERT_OK(core_->SetOption(0, "lr", 0.25));
  ASSERT_OK(Push("a", a_, {8}));
  lineage_ = 2;
  version_ = 10;
  live_ = after_;
  snapshot_errors_ = {RolledBack(2, 10)};
  EXPECT_THAT(Pull(), StatusIs(absl::StatusCode::kFailedPrecondition, "digits was restored"));
  EXPECT_EQ(core_->version(), 10u);
  EXPECT_EQ(core_->lineage(), 2u);
  EXPECT_EQ(core_->trainer_state(), "position 10");
  EXPECT_THAT(core_->parameters(), SizeIs(2));
  EXPECT_EQ(*core_->param_groups()[0].options.Find("lr"), OptionValue(0.1));
  ASSERT_OK_AND_ASSIGN(const PullResult pulled, Pull());
  EXPECT_EQ(pulled.version, 10u);
  EXPECT_EQ(snapshots_[0].header().lineage(), 1u);
  EXPECT_EQ(snapshots_[1].header().lineage(), 2u);
  EXPECT_EQ(snapshots_[1].at_least_version(), 10u);
  ASSERT_OK(core_->Step({}));
  EXPECT_EQ(steps_[0].header().lineage(), 2u);
  EXPECT_EQ(steps_[0].header().first_live_push(), 2u);
  EXPECT_LT(steps_[0].last_push(), steps_[0].first_push());
  EXPECT_THAT(steps_[0].set_options(), SizeIs(0));
}

TEST_F(OptimizerChangesTest, AnOlderLineageIsNotFollowed) {
  snapshot_errors_ = {RolledBack(0, 10)};
  EXPECT_THAT(Pull(), StatusIs(absl::StatusCode::kUnavailable, "digits was restored"));
  EXPECT_EQ(core_->version(), 16u);
  EXPECT_EQ(core_->lineage(), 1u);
}

TEST_F(OptimizerChangesTest, AnOpenPushOfAReplacedHistoryIsOverAndItsNumberUsed) {
  ASSERT_OK_AND_ASSIGN(std::shared_ptr<PushCore> push, core_->StartPush({}));
  lineage_ = 2;
  snapshot_errors_ = {RolledBack(2, 10)};
  EXPECT_FALSE(Pull().ok());
  EXPECT_THAT(push->pushes().Add(push->id(), "a", {MakeTensorView(a_, {8})}, nullptr),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("is not open")));
  ASSERT_OK_AND_ASSIGN(const std::shared_ptr<PushCore> next, core_->StartPush({}));
  EXPECT_EQ(next->id().sequence, 2u);
  push.reset();
  EXPECT_OK(next->pushes().Finish(next->id()));
}

TEST_F(OptimizerChangesTest, APushsAcknowledgementReportsAReplacedHistory) {
  server(0).answers = {RolledBack(2, 10)};
  lineage_ = 2;
  ASSERT_OK(Push("a", a_, {8}));
  EXPECT_THAT(core_->Step({}),
              StatusIs(absl::StatusCode::kFailedPrecondition, "digits was restored"));
  EXPECT_THAT(steps_, SizeIs(0));
  ASSERT_OK(core_->Step({}));
  EXPECT_EQ(steps_[0].header().lineage(), 2u);
  EXPECT_EQ(steps_[0].header().sequence(), 1u);
}

// A server does not know the trainers' states; while nobody can be asked, nothing is dropped.
TEST_F(OptimizerChangesTest, AReplacedHistoryIsReportedWithTheTrainersStateOrAgain) {
  v1::ErrorDetail detail;
  detail.set_reason(v1::ROLLED_BACK);
  detail.set_lineage(2);
  detail.set_version(10);
  const absl::Status told =
      MakeError(absl::StatusCode::kFailedPrecondition, "lineage 1, the current one is 2", detail);
  lineage_ = 2;
  version_ = 10;
  trainer_state_ = "position 10";
  EXPECT_CALL(*connection_, OpenSession)
      .WillOnce(testing::Return(absl::UnavailableError("away")))
      .WillRepeatedly(testing::DoDefault());
  server(0).answers = {told};
  ASSERT_OK(Push("a", a_, {8}));
  EXPECT_THAT(core_->Step({}), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(core_->lineage(), 1u);
  EXPECT_EQ(core_->trainer_state(), "position 15");

  snapshot_errors_ = {told};
  const absl::Status rolled_back = Pull().status();
  EXPECT_EQ(ReasonOf(rolled_back), v1::ROLLED_BACK);
  EXPECT_EQ(core_->lineage(), 2u);
  EXPECT_EQ(core_->version(), 10u);
  EXPECT_EQ(core_->trainer_state(), "position 10");
  ASSERT_OK(core_->Step({}));
  EXPECT_EQ(steps_[0].header().first_live_push(), 2u);
}

TEST_F(OptimizerChangesTest, ADescriptionThatFailedIsAskedForAgain) {
  lineage_ = 2;
  live_ = after_;
  step_errors_ = {RolledBack(2, 10)};
  EXPECT_CALL(*connection_, Describe)
      .WillOnce(testing::Return(absl::UnavailableError("away")))
      .WillRepeatedly(testing::DoDefault());
  EXPECT_FALSE(core_->Step({}).ok());
  EXPECT_THAT(core_->parameters(), SizeIs(1));
  ASSERT_OK(core_->Step({}));
  EXPECT_THAT(core_->parameters(), SizeIs(2));
  EXPECT_EQ(steps_[1].header().plan_id(), after_.plan.plan_id);
}

TEST_F(OptimizerChangesTest, ALoadIsWrittenByTheStagingsPlanAndAdopted) {
  live_ = after_;
  StateDict source;
  const auto floats = [](const float* data, int64_t count) {
    HostTensor tensor{DType::kFloat32, {count}, std::vector<char>(count * 4)};
    std::memcpy(tensor.bytes.data(), data, count * 4);
    return tensor;
  };
  source.version = 400;
  source.parameters = {{"a", floats(a_, 8)}, {"b", floats(b_, 2)}};
  const float seven = 7;
  HostTensor step = floats(&seven, 1);
  step.sizes.clear();
  source.state["a"] = {{"momentum_buffer", floats(a_, 8)}, {"step", step}};
  source.state["b"] = {{"step", 3.0}};
  source.param_groups = after_.groups;
  source.trainer_states = {{0, "position 400"}};
  ASSERT_OK(core_->SetOption(0, "lr", 0.25));
  ASSERT_OK(Push("a", a_, {8}));
  const size_t pushed = server(0).received.size();

  answers_ = {Staging(6), Done(400, 2)};
  lineage_ = 2;
  version_ = 400;
  trainer_state_ = "position 400";
  ASSERT_OK_AND_ASSIGN(const LoadResult loaded, core_->Load(source, {}));
  EXPECT_EQ(loaded.version, 400u);
  EXPECT_EQ(core_->lineage(), 2u);
  EXPECT_EQ(core_->trainer_state(), "position 400");
  EXPECT_EQ(*core_->param_groups()[0].options.Find("lr"), OptionValue(0.1));

  EXPECT_EQ(proposals_[0].header().lineage(), 1u);
  EXPECT_EQ(proposals_[0].header().session(), 9u);
  v1::LoadChange change;
  ASSERT_TRUE(change.ParseFromString(proposals_[0].load().data()));
  EXPECT_TRUE(change.strict());
  EXPECT_EQ(change.version(), 400u);
  ASSERT_THAT(change.tensors(), SizeIs(2));
  EXPECT_THAT(change.tensors(0).states(), ElementsAre("momentum_buffer", "step"));
  EXPECT_THAT(change.groups(1).parameters(), ElementsAre("b"));

  ASSERT_THAT(server(0).received, SizeIs(pushed + 1));
  const ReceivedTensors& first = server(0).received.back();
  const ReceivedTensors& second = server(1).received.back();
  const std::string a(reinterpret_cast<const char*>(a_), sizeof(a_));
  EXPECT_EQ(first.shards.at(0) + second.shards.at(1), a);
  EXPECT_EQ(first.state.at({0, 1}) + second.state.at({1, 1}), a);
  EXPECT_EQ(second.shards.at(2), std::string(reinterpret_cast<const char*>(b_), sizeof(b_)));
  // Scalars go where a shard of their parameter is.
  ASSERT_THAT(first.scalars, SizeIs(1));
  EXPECT_EQ(first.scalars[0].value(), 7.0);
  ASSERT_THAT(second.scalars, SizeIs(2));
  EXPECT_EQ(second.scalars[1].parameter(), 1u);
  EXPECT_EQ(second.scalars[1].tensor(), 2u);
  EXPECT_EQ(second.scalars[1].value(), 3.0);

  ASSERT_OK(core_->Step({}));
  EXPECT_EQ(steps_[0].header().lineage(), 2u);
  EXPECT_EQ(steps_[0].header().first_live_push(), 2u);
}

TEST_F(OptimizerChangesTest, ARefusedLoadChangesNothingHere) {
  StateDict source;
  answers_ = {absl::InvalidArgumentError("missing keys: model.a")};
  ASSERT_OK(Push("a", a_, {8}));
  EXPECT_THAT(core_->Load(source, {}), StatusIs(absl::StatusCode::kInvalidArgument));
  ASSERT_OK(core_->Step({}));
  EXPECT_EQ(steps_[0].last_push(), 1u);
  EXPECT_EQ(steps_[0].header().lineage(), 1u);
}

TEST_F(OptimizerChangesTest, ACheckpointIsLoadedByItsIdWithProgress) {
  v1::ProposeReply pending;
  pending.mutable_pending()->set_bytes_done(5);
  pending.mutable_pending()->set_bytes_total(20);
  v1::ProposeReply done = Done(400, 2);
  done.mutable_done()->add_missing_keys("optim.state.a.step");
  answers_ = {pending, done};
  LoadOptions options;
  options.strict = false;
  std::vector<std::pair<uint64_t, uint64_t>> progress;
  options.progress = [&](uint64_t d, uint64_t t) { progress.emplace_back(d, t); };
  ASSERT_OK_AND_ASSIGN(const LoadResult loaded, core_->Load(CheckpointSource{"1-400"}, options));
  EXPECT_THAT(loaded.missing_keys, ElementsAre("optim.state.a.step"));
  EXPECT_THAT(progress, ElementsAre(std::make_pair(5u, 20u)));
  v1::LoadChange change;
  ASSERT_TRUE(change.ParseFromString(proposals_[0].load().data()));
  EXPECT_EQ(change.checkpoint_id(), "1-400");
  EXPECT_FALSE(change.strict());
}

TEST_F(OptimizerChangesTest, AStepThatCannotBeReachedSaysWhatIsDurable) {
  durable_ = 400;
  ASSERT_OK(core_->Step({}));
  step_errors_ = {absl::UnavailableError("server 0 at 127.0.0.1:7400: connection refused"),
                  MakeError(absl::StatusCode::kFailedPrecondition, "server 1 lost its shards",
                            v1::SHARDS_LOST)};
  EXPECT_THAT(core_->Step({}), StatusIs(absl::StatusCode::kUnavailable,
                                        "step 18 of \"digits\": outcome unknown: server 0 at "
                                        "127.0.0.1:7400: connection refused, last durable version "
                                        "400; call Step again to go on with it"));
  const absl::Status lost = core_->Step({}).status();
  EXPECT_EQ(lost.message(), "server 1 lost its shards, last durable version 400");
  EXPECT_EQ(ReasonOf(lost), v1::SHARDS_LOST);
  EXPECT_EQ(core_->last_step_version(), 15u);
}

}  // namespace
}  // namespace shardstep::internal
