#include "shardstep/client/optimizer_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "shardstep/client/fake_fleet.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

using ::testing::_;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::NiceMock;
using ::testing::SizeIs;

// Trainer rank 0 of "digits": fc1.weight (8 floats over two servers) and fc1.bias (2, on server 1).
class OptimizerCoreTest : public testing::Test {
 protected:
  OptimizerCoreTest() {
    described_.description = Describe({{"fc1.weight", DType::kFloat32, {8}, Chunk{0, {{0}, {1}}}},
                                       {"fc1.bias", DType::kFloat32, {2}, Whole{1}}},
                                      2);
    described_.version = 16;
    described_.lineage = 1;
    auto connection = std::make_unique<NiceMock<MockConnection>>(
        std::make_shared<const OptimizerIndex>(described_.description), 2);
    connection_ = connection.get();
    client_ = MakeCore(std::move(connection), &timer_);
    v1::OpenSessionReply opened;
    opened.set_session(9);
    opened.set_lease_ms(30000);
    ON_CALL(*connection_, OpenSession).WillByDefault(testing::Return(opened));
    ON_CALL(*connection_, CloseSession).WillByDefault(testing::Return(v1::CloseSessionReply()));
    ON_CALL(*connection_, CloseSnapshot).WillByDefault(testing::Return(v1::CloseSnapshotReply()));
    ON_CALL(*connection_, Step).WillByDefault([this](const v1::StepRequest& request, absl::Time) {
      requests_.push_back(request);
      if (replies_.empty()) return absl::StatusOr<v1::StepReply>(Committed(17));
      absl::StatusOr<v1::StepReply> reply = replies_.front();
      replies_.pop_front();
      return reply;
    });
    Open(Synchronous(1));
  }

  void Open(Mode mode) {
    described_.description.definition.mode = mode;
    core_ = std::make_unique<OptimizerCore>(
        client_, Session::Open(client_, "digits", 0, {}, timer_.Now() + absl::Seconds(1)).value(),
        described_, DeclaredRegions(2));
  }

  static v1::StepReply Committed(uint64_t version) {
    v1::StepReply reply;
    reply.mutable_committed()->set_version(version);
    reply.mutable_committed()->set_lineage(1);
    reply.mutable_committed()->set_grad_norm(2.5);
    return reply;
  }

  static v1::StepReply WaitingFor(int trainer_rank, int64_t last_seen_ms) {
    v1::StepReply reply;
    v1::StepReply::Waiting::Trainer& trainer = *reply.mutable_waiting()->add_trainers();
    trainer.set_trainer_rank(trainer_rank);
    trainer.set_last_seen_ms(last_seen_ms);
    reply.mutable_waiting()->set_version(17);
    return reply;
  }

  absl::Status Push(absl::string_view parameter, const TensorView& gradient,
                    const PushOptions& options = {}) {
    SHARDSTEP_ASSIGN_OR_RETURN(const std::shared_ptr<PushCore> push, core_->StartPush(options));
    SHARDSTEP_RETURN_IF_ERROR(push->pushes().Add(push->id(), parameter, {gradient}, nullptr));
    return push->pushes().Finish(push->id());
  }
  absl::Status PushWeight(const PushOptions& options = {}) {
    return Push("fc1.weight", MakeTensorView(weight_, {8}), options);
  }
  absl::Status PushBias() { return Push("fc1.bias", MakeTensorView(weight_, {2})); }

  FakeServer& server(int rank) { return *connection_->servers[rank]; }

  FakeTimer timer_;
  DescribedOptimizer described_;
  MockConnection* connection_ = nullptr;
  std::shared_ptr<const ClientCore> client_;
  std::unique_ptr<OptimizerCore> core_;
  std::deque<absl::StatusOr<v1::StepReply>> replies_;
  std::vector<v1::StepRequest> requests_;
  float weight_[8] = {1, 2, 3, 4, 5, 6, 7, 8};
};

TEST_F(OptimizerCoreTest, AStepNamesThePushesMadeSinceTheLastOne) {
  ASSERT_OK(PushWeight());
  ASSERT_OK(PushWeight());
  ASSERT_OK_AND_ASSIGN(const StepResult first, core_->Step({}));
  EXPECT_EQ(first.version, 17u);
  EXPECT_EQ(first.grad_norm, 2.5);
  EXPECT_EQ(core_->version(), 17u);
  ASSERT_OK(PushWeight());
  ASSERT_OK(core_->Step({}));
  ASSERT_THAT(requests_, SizeIs(2));
  EXPECT_EQ(requests_[0].header().sequence(), 1u);
  EXPECT_EQ(requests_[0].header().session(), 9u);
  EXPECT_EQ(requests_[0].first_push(), 1u);
  EXPECT_EQ(requests_[0].last_push(), 2u);
  EXPECT_EQ(requests_[1].header().sequence(), 2u);
  EXPECT_EQ(requests_[1].header().first_live_push(), 3u);
  EXPECT_EQ(requests_[1].first_push(), 3u);
  EXPECT_EQ(requests_[1].last_push(), 3u);
}

TEST_F(OptimizerCoreTest, ASynchronousPushReachesEveryServerAlsoWhereNoSliceFalls) {
  ASSERT_OK(PushBias());
  ASSERT_OK(core_->Step({}));
  for (int rank : {0, 1}) {
    ASSERT_THAT(server(rank).received, SizeIs(1));
    EXPECT_EQ(server(rank).received[0].end.touched(), std::string("\x02"));
    EXPECT_EQ(server(rank).received[0].begin.computed_on(), 16u);
  }
  EXPECT_THAT(server(0).received[0].shards, SizeIs(0));
  EXPECT_FALSE(requests_[0].has_partial());
}

TEST_F(OptimizerCoreTest, AnAsynchronousPushReachesWhomItTouchesAndTheStepSaysSo) {
  Open(Asynchronous(100));
  ASSERT_OK(PushBias());
  ASSERT_OK(PushWeight());
  ASSERT_OK(PushBias());
  ASSERT_OK(core_->Step({}));
  EXPECT_THAT(server(0).received, SizeIs(1));
  EXPECT_THAT(server(1).received, SizeIs(3));
  v1::PartialPushes partial = requests_[0].partial();
  ASSERT_THAT(partial.sent_to(), SizeIs(2));
  EXPECT_EQ(partial.sent_to(0).server_rank(), 0);
  EXPECT_THAT(partial.sent_to(0).sequences(), ElementsAre(2));
  EXPECT_EQ(partial.sent_to(1).server_rank(), 1);
  EXPECT_THAT(partial.sent_to(1).sequences(), ElementsAre(1, 2, 3));
  EXPECT_EQ(partial.touched(), "\x03");
  EXPECT_EQ(partial.rows(), "");
  // Where all went everywhere there is nothing to say.
  ASSERT_OK(PushWeight());
  ASSERT_OK(core_->Step({}));
  EXPECT_FALSE(requests_[1].has_partial());
}

TEST_F(OptimizerCoreTest, RowsReachEveryServerThatHasAShardOfTheirParameter) {
  Open(Asynchronous(100));
  ASSERT_OK_AND_ASSIGN(const std::shared_ptr<PushCore> push, core_->StartPush({}));
  const std::vector<int64_t> rows = {1};
  ASSERT_OK(push->pushes().AddRows(
      push->id(), "fc1.weight",
      {absl::MakeConstSpan(rows), MakeTensorView(static_cast<const float*>(weight_), {1})},
      nullptr));
  ASSERT_OK(push->pushes().Finish(push->id()));
  ASSERT_OK(PushBias());
  ASSERT_OK(core_->Step({}));
  // Its shard of the weight begins behind row 1.
  ASSERT_THAT(server(1).received, SizeIs(2));
  EXPECT_THAT(server(1).received[0].slices, SizeIs(0));
  EXPECT_THAT(requests_[0].partial().sent_to(0).sequences(), ElementsAre(1));
  EXPECT_EQ(requests_[0].partial().touched(), "\x03");
  EXPECT_EQ(requests_[0].partial().rows(), "\x01");
}

TEST_F(OptimizerCoreTest, AWaitingStepIsCalledAgainWithTheSameBytes) {
  ASSERT_OK(PushWeight());
  replies_ = {WaitingFor(1, 100), WaitingFor(1, 200), Committed(17)};
  ASSERT_OK(core_->Step({}));
  ASSERT_THAT(requests_, SizeIs(3));
  EXPECT_EQ(requests_[0].SerializeAsString(), requests_[2].SerializeAsString());
}

TEST_F(OptimizerCoreTest, TheUsersDeadlineEndsTheWaitWithWords) {
  ASSERT_OK(PushWeight());
  ON_CALL(*connection_, Step)
      .WillByDefault([this](const v1::StepRequest& request, absl::Time deadline) {
        requests_.push_back(request);
        timer_.SleepFor(std::min(absl::Seconds(20), deadline - timer_.Now()));
        return absl::StatusOr<v1::StepReply>(WaitingFor(1, 58200));
      });
  StepOptions options;
  options.timeout = absl::Minutes(1);
  EXPECT_THAT(core_->Step(options),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       "step 17 of \"digits\": waited 60.0 s for trainer rank 1 (last seen 58.2 s "
                       "ago)"));
  // The next Step goes on with it.
  ON_CALL(*connection_, Step).WillByDefault([this](const v1::StepRequest& request, absl::Time) {
    requests_.push_back(request);
    return absl::StatusOr<v1::StepReply>(Committed(17));
  });
  ASSERT_OK(PushWeight());
  ASSERT_OK(core_->Step({}));
  EXPECT_EQ(requests_.back().SerializeAsString(), requests_.front().SerializeAsString());
  ASSERT_OK(core_->Step({}));
  EXPECT_EQ(requests_.back().first_push(), 2u);
  EXPECT_EQ(requests_.back().last_push(), 2u);
}

TEST_F(OptimizerCoreTest, MissingPushesAreSentAgainAndTheStepCalledWithTheSameSequence) {
  ASSERT_OK(PushWeight());
  v1::ErrorDetail detail;
  detail.set_reason(v1::MISSING);
  v1::MissingPushes& missing = *detail.add_missing();
  missing.set_server_rank(1);
  v1::PushRange& range = *missing.add_pushes();
  range.set_session(9);
  range.set_first(1);
  range.set_last(1);
  replies_ = {MakeError(absl::StatusCode::kAborted, "server 1 lacks push 1", detail),
              Committed(17)};
  ASSERT_OK(core_->Step({}));
  ASSERT_THAT(requests_, SizeIs(2));
  EXPECT_EQ(requests_[0].SerializeAsString(), requests_[1].SerializeAsString());
  EXPECT_THAT(server(0).received, SizeIs(1));
  ASSERT_THAT(server(1).received, SizeIs(2));
  EXPECT_EQ(server(1).received[1].begin.digest(), server(1).received[0].end.digest());
}

TEST_F(OptimizerCoreTest, ALostParticipantIsWaitedForUntilTheDeadline) {
  ASSERT_OK(PushWeight());
  replies_ = {MakeError(absl::StatusCode::kAborted, "the lease of trainer rank 1 lapsed",
                        v1::PARTICIPANT_LOST),
              Committed(17)};
  ASSERT_OK(core_->Step({}));
  EXPECT_THAT(requests_, SizeIs(2));
  EXPECT_THAT(timer_.slept, SizeIs(1));

  ON_CALL(*connection_, Step)
      .WillByDefault(testing::Return(MakeError(
          absl::StatusCode::kAborted, "the lease of trainer rank 1 lapsed", v1::PARTICIPANT_LOST)));
  StepOptions options;
  options.timeout = absl::Seconds(10);
  EXPECT_THAT(core_->Step(options),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       "step 18 of \"digits\": waited 10.0 s; the lease of trainer rank 1 lapsed"));
}

TEST_F(OptimizerCoreTest, AnAttemptCutOffByTheDeadlineDoesNotHideAnAnswerJustBefore) {
  ASSERT_OK(PushWeight());
  ON_CALL(*connection_, Step)
      .WillByDefault([this](const v1::StepRequest& request,
                            absl::Time deadline) -> absl::StatusOr<v1::StepReply> {
        requests_.push_back(request);
        if (requests_.size() == 1) {
          timer_.Advance(absl::Milliseconds(999));
          return MakeError(absl::StatusCode::kAborted, "the lease of trainer rank 1 lapsed",
                           v1::PARTICIPANT_LOST);
        }
        timer_.Advance(std::max(absl::ZeroDuration(), deadline - timer_.Now()));
        return absl::UnavailableError("server 0 at 127.0.0.1:7400: no answer, 1 attempt in 0.0 s");
      });
  StepOptions options;
  options.timeout = absl::Seconds(1);
  EXPECT_THAT(core_->Step(options),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       "step 17 of \"digits\": waited 1.0 s; the lease of trainer rank 1 lapsed"));
  EXPECT_THAT(requests_, SizeIs(2));
}

TEST_F(OptimizerCoreTest, AnUnreachableCoordinatorLeavesTheOutcomeUnknownAndSaysSo) {
  ASSERT_OK(PushWeight());
  replies_ = {absl::UnavailableError(
      "server 0 at 127.0.0.1:7400: connection refused, 7 attempts in 5.0 s")};
  EXPECT_THAT(
      core_->Step({}),
      StatusIs(absl::StatusCode::kUnavailable,
               "step 17 of \"digits\": outcome unknown: server 0 at 127.0.0.1:7400: "
               "connection refused, 7 attempts in 5.0 s; call Step again to go on with it"));
  ASSERT_OK(core_->Step({}));
  EXPECT_EQ(requests_[0].SerializeAsString(), requests_[1].SerializeAsString());
}

TEST_F(OptimizerCoreTest, AStepWhoseReplyIsLongOverdueIsAskedAbout) {
  ASSERT_OK(PushWeight());
  replies_ = {absl::UnavailableError("gone")};
  EXPECT_FALSE(core_->Step({}).ok());
  timer_.Advance(absl::Minutes(31));
  v1::StepStatusReply status;
  status.set_state(v1::StepStatusReply::COMMITTED);
  *status.mutable_committed() = Committed(17).committed();
  EXPECT_CALL(*connection_, StepStatus).WillOnce(testing::Return(status));
  ASSERT_OK_AND_ASSIGN(const StepResult result, core_->Step({}));
  EXPECT_EQ(result.version, 17u);
  EXPECT_THAT(requests_, SizeIs(1));
}

// Whatever else it is said to be, the same call goes on with it.
TEST_F(OptimizerCoreTest, AStepThatIsSilentWithinALongDeadlineIsAskedAboutAndCalledAgain) {
  ON_CALL(*connection_, Step)
      .WillByDefault([this](const v1::StepRequest& request, absl::Time deadline) {
        requests_.push_back(request);
        if (requests_.size() == 4) return absl::StatusOr<v1::StepReply>(Committed(17));
        EXPECT_LE(deadline - timer_.Now(), absl::Minutes(30));
        timer_.Advance(deadline - timer_.Now());
        return absl::StatusOr<v1::StepReply>(absl::UnavailableError("no answer"));
      });
  std::deque<v1::StepStatusReply::State> states = {
      v1::StepStatusReply::PENDING, v1::StepStatusReply::ABORTED, v1::StepStatusReply::UNKNOWN};
  EXPECT_CALL(*connection_, StepStatus)
      .Times(3)
      .WillRepeatedly([&](const v1::StepStatusRequest& request, absl::Time) {
        EXPECT_EQ(request.header().session(), 9u);
        EXPECT_EQ(request.header().sequence(), 1u);
        v1::StepStatusReply reply;
        reply.set_state(states.front());
        states.pop_front();
        return absl::StatusOr<v1::StepStatusReply>(reply);
      });
  ASSERT_OK(PushWeight());
  StepOptions options;
  options.timeout = absl::Hours(3);
  ASSERT_OK(core_->Step(options));
  ASSERT_THAT(requests_, SizeIs(4));
  for (const v1::StepRequest& request : requests_) {
    EXPECT_EQ(request.SerializeAsString(), requests_[0].SerializeAsString());
  }
}

// The memory of a push is given up only with a step that is known to be over.
TEST_F(OptimizerCoreTest, GradientsStayBorrowedUntilTheStepIsKnown) {
  const auto owner = std::make_shared<int>(1);
  ASSERT_OK_AND_ASSIGN(std::shared_ptr<PushCore> push, core_->StartPush({}));
  ASSERT_OK(push->pushes().Add(push->id(), "fc1.weight", {MakeTensorView(weight_, {8})}, owner));
  ASSERT_OK(push->pushes().Finish(push->id()));
  push.reset();
  replies_ = {absl::UnavailableError("gone"), Committed(17)};
  EXPECT_FALSE(core_->Step({}).ok());
  EXPECT_EQ(owner.use_count(), 2);
  ASSERT_OK(core_->Step({}));
  EXPECT_EQ(owner.use_count(), 1);
}

TEST_F(OptimizerCoreTest, AServerThatIsAwayBeforeTheStepIsNoUnknownOutcome) {
  server(1).answers.assign(
      100, absl::UnavailableError("Failed to connect to remote host: Connection refused"));
  ASSERT_OK(PushWeight());
  StepOptions options;
  options.timeout = absl::Seconds(5);
  EXPECT_THAT(core_->Step(options),
              StatusIs(absl::StatusCode::kUnavailable,
                       "server 1 at 127.0.0.1:7401: connection refused, 7 attempts in 5.0 s"));
  EXPECT_THAT(requests_, SizeIs(0));
}

TEST_F(OptimizerCoreTest, RefusedGradientsAreDroppedAndTheCallNumberIsUsedAgain) {
  ASSERT_OK(PushWeight());
  replies_ = {MakeError(absl::StatusCode::kAborted, "parameter \"fc1.weight\" is not finite",
                        v1::NONFINITE)};
  EXPECT_THAT(core_->Step({}), StatusIs(absl::StatusCode::kAborted));
  ASSERT_OK(PushWeight());
  ASSERT_OK(core_->Step({}));
  EXPECT_EQ(requests_[1].header().sequence(), 1u);
  EXPECT_EQ(requests_[1].first_push(), 2u);
}

TEST_F(OptimizerCoreTest, ZeroGradDropsWhatWasPushed) {
  ASSERT_OK(PushWeight());
  ASSERT_OK(core_->ZeroGrad(/*set_to_none=*/true));
  ASSERT_OK(core_->Step({}));
  EXPECT_EQ(requests_[0].header().first_live_push(), 2u);
  EXPECT_LT(requests_[0].last_push(), requests_[0].first_push());
}

TEST_F(OptimizerCoreTest, ZeroGradToZerosReplacesWhatWasPushedAndNothingElse) {
  ASSERT_OK(PushWeight());
  ASSERT_OK(core_->ZeroGrad(/*set_to_none=*/false));
  ASSERT_OK(core_->Step({}));
  EXPECT_EQ(requests_[0].first_push(), 2u);
  EXPECT_EQ(requests_[0].last_push(), 2u);
  const ReceivedTensors& zeros = server(1).received.back();
  EXPECT_EQ(zeros.begin.header().first_live_push(), 2u);
  EXPECT_EQ(zeros.end.touched(), std::string("\x01"));
  ASSERT_THAT(zeros.slices, SizeIs(1));
  EXPECT_EQ(zeros.slices[0].body(), v1::Slice::ZERO);
  EXPECT_EQ(zeros.slices[0].count(), 4u);
  // Without a push there is nothing to replace.
  ASSERT_OK(core_->ZeroGrad(/*set_to_none=*/false));
  ASSERT_OK(core_->Step({}));
  EXPECT_LT(requests_[1].last_push(), requests_[1].first_push());
}

TEST_F(OptimizerCoreTest, KeptGradientsAreTakenByTheNextStepToo) {
  ASSERT_OK(PushWeight());
  StepOptions keep;
  keep.keep_gradients = true;
  ASSERT_OK(core_->Step(keep));
  ASSERT_OK(PushWeight());
  ASSERT_OK(core_->Step({}));
  EXPECT_EQ(requests_[1].first_push(), 1u);
  EXPECT_EQ(requests_[1].last_push(), 2u);
}

TEST_F(OptimizerCoreTest, SetOptionsTravelOnceAndOnlyAcknowledgedStepsForgetThem) {
  ASSERT_OK(core_->SetOption(0, "lr", 0.5));
  EXPECT_EQ(*core_->param_groups()[0].options.Find("lr"), OptionValue(0.5));
  replies_ = {MakeError(absl::StatusCode::kAborted, "not finite", v1::NONFINITE)};
  EXPECT_FALSE(core_->Step({}).ok());
  ASSERT_OK(core_->Step({}));
  ASSERT_OK(core_->Step({}));
  EXPECT_THAT(requests_[0].set_options(), SizeIs(1));
  EXPECT_THAT(requests_[1].set_options(), SizeIs(1));
  EXPECT_THAT(requests_[2].set_options(), SizeIs(0));
}

TEST_F(OptimizerCoreTest, OptionsAreCheckedInPyTorchsWords) {
  EXPECT_THAT(core_->SetOption(0, "lr", -0.5),
              StatusIs(absl::StatusCode::kInvalidArgument, "Invalid learning rate: -0.5"));
  EXPECT_EQ(*core_->param_groups()[0].options.Find("lr"), OptionValue(0.1));
  EXPECT_THAT(core_->SetOption(1, "lr", 0.5), StatusIs(absl::StatusCode::kInvalidArgument));
  StepOptions options;
  options.clip_grad_norm = -1.0;
  EXPECT_THAT(core_->Step(options), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(OptimizerCoreTest, AMisspeltParameterIsToldTheNearestName) {
  ASSERT_OK_AND_ASSIGN(const std::shared_ptr<PushCore> push, core_->StartPush({}));
  EXPECT_THAT(push->pushes().Add(push->id(), "fc1.wieght", {MakeTensorView(weight_, {8})}, nullptr),
              StatusIs(absl::StatusCode::kNotFound,
                       "parameter \"fc1.wieght\": not in optimizer \"digits\"; did you mean "
                       "\"fc1.weight\""));
  EXPECT_THAT(
      push->pushes().Add(push->id(), "fc1.weight", {MakeTensorView(weight_, {4, 2})}, nullptr),
      StatusIs(absl::StatusCode::kInvalidArgument,
               "parameter \"fc1.weight\": expected shape [8], got [4,2]"));
}

TEST_F(OptimizerCoreTest, PushesAreOpenedOneAfterTheOtherWithOneWeight) {
  ASSERT_OK_AND_ASSIGN(std::shared_ptr<PushCore> push, core_->StartPush({}));
  EXPECT_THAT(core_->StartPush({}), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(core_->Step({}), StatusIs(absl::StatusCode::kFailedPrecondition));
  push.reset();  // as if it had never begun
  ASSERT_OK(PushWeight());
  PushOptions heavy;
  heavy.weight = 2.0;
  EXPECT_THAT(PushWeight(heavy), StatusIs(absl::StatusCode::kInvalidArgument));
  ASSERT_OK(core_->Step({}));
  EXPECT_EQ(requests_[0].last_push(), 1u);
}

TEST_F(OptimizerCoreTest, TheStepsSnapshotIsClosedWithTheNextStep) {
  v1::StepReply reply = Committed(17);
  reply.mutable_committed()->mutable_snapshot()->set_snapshot(77);
  reply.mutable_committed()->mutable_snapshot()->set_version(17);
  replies_ = {reply};
  ASSERT_OK(core_->Step({}));
  ASSERT_OK(core_->Step({}));
  EXPECT_THAT(requests_[0].close_snapshots(), SizeIs(0));
  EXPECT_THAT(requests_[1].close_snapshots(), ElementsAre(77));
}

}  // namespace
}  // namespace shardstep::internal
