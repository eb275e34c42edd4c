// Steps through coordinator and shard hosts: three servers in one thread, no sockets.

#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/server/test_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

class StepTest : public ::testing::Test {
 protected:
  // SGD with lr 1: a step subtracts the reduced gradient.
  void Start(Mode mode, OptionMap options = {{"lr", 1.0}},
             const std::optional<ShardingSpec>& b = std::nullopt) {
    const int trainers =
        std::holds_alternative<Synchronous>(mode) ? std::get<Synchronous>(mode).trainers : 4;
    for (int rank = 0; rank < trainers; ++rank) {
      sessions_.push_back(fleet_.OpenSession(rank, std::string("t") + char('0' + rank)));
      ASSERT_NE(sessions_.back(), 0u);
    }
    OptimizerDefinition definition =
        TestFleet::Definition({{"a", 7}, {"b", 5}}, std::move(options), mode, 3);
    if (b.has_value()) definition.parameters[1].spec = b;
    ASSERT_OK(fleet_.Create(definition, sessions_[0]));
  }

  void ExpectValues(float a, float b) {
    const auto values = fleet_.ReadNow();
    ASSERT_OK(values.status());
    EXPECT_THAT(values->at("a"), Each(a));
    EXPECT_THAT(values->at("b"), Each(b));
    EXPECT_EQ(values->at("a").size(), 7u);
  }

  TestFleet fleet_{3, ::testing::TempDir() + "/" +
                          ::testing::UnitTest::GetInstance()->current_test_info()->name()};
  std::vector<uint64_t> sessions_;
};

TEST_F(StepTest, TakesTheMeanOverAllTrainers) {
  Start(Synchronous(2));
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}, {"b", 4}}));
  ASSERT_OK(fleet_.Push(sessions_[1], 1, {{"a", 3}}));
  const auto first = fleet_.Step(sessions_[0], 1, 1, 1);
  EXPECT_FALSE(first->there());
  const auto second = fleet_.Step(sessions_[1], 1, 1, 1);
  ASSERT_OK(first->status());
  ASSERT_OK(second->status());
  EXPECT_EQ((*first)->committed().version(), 1u);
  EXPECT_EQ((*second)->committed().version(), 1u);
  // b is missing from one trainer: it counts as zero.
  ExpectValues(-2, -2);
  // sqrt(7 * 2^2 + 5 * 2^2)
  EXPECT_FLOAT_EQ((*first)->committed().grad_norm(), std::sqrt(48.0f));
}

TEST_F(StepTest, LeavesAParameterWithoutAnyGradientUntouched) {
  Start(Synchronous(1), {{"lr", 1.0}, {"weight_decay", 0.5}});
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}, {"b", 1}}));
  ASSERT_OK(fleet_.Step(sessions_[0], 1, 1, 1)->status());
  ASSERT_OK(fleet_.Push(sessions_[0], 2, {{"a", 0}}));
  ASSERT_OK(fleet_.Step(sessions_[0], 2, 2, 2)->status());
  // a: decayed by a zero gradient's step; b: no gradient, no decay.
  ExpectValues(-0.5, -1);
}

TEST_F(StepTest, AccumulatesPushesAndWeighsTrainers) {
  Start(Synchronous(2));
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}, 3));
  ASSERT_OK(fleet_.Push(sessions_[0], 2, {{"a", 1}}, 3));
  ASSERT_OK(fleet_.Push(sessions_[1], 1, {{"a", 2}}, 1));
  v1::StepRequest weighted;
  weighted.set_weight(3);
  const auto first = fleet_.Step(sessions_[0], 1, 1, 2, weighted);
  ASSERT_OK(fleet_.Step(sessions_[1], 1, 1, 1)->status());
  ASSERT_OK(first->status());
  ExpectValues(-2, 0);  // (1*3 + 1*3 + 2*1) / (3 + 1)
}

// Of pushes that went to these servers only: {server rank, sequences}.
v1::StepRequest Partial(const std::string& touched,
                        const std::map<int, std::vector<uint64_t>>& sent) {
  v1::StepRequest request;
  request.mutable_partial()->set_touched(touched);
  for (const auto& [server, sequences] : sent) {
    v1::PartialPushes::SentTo* to = request.mutable_partial()->add_sent_to();
    to->set_server_rank(server);
    for (const uint64_t sequence : sequences) to->add_sequences(sequence);
  }
  return request;
}

TEST_F(StepTest, AServerWithoutAPushOfTheStepTakesPartInIt) {
  Start(Synchronous(2), {{"lr", 1.0}}, /*b=*/Whole{2});
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 4}}));
  ASSERT_OK(fleet_.Push(sessions_[0], 2, {{"b", 6}}, 1, 0, /*only_server=*/2));
  ASSERT_OK(fleet_.Push(sessions_[1], 1, {{"a", 2}}));
  const auto first =
      fleet_.Step(sessions_[0], 1, 1, 2, Partial("\x03", {{0, {1}}, {1, {1}}, {2, {1, 2}}}));
  ASSERT_OK(fleet_.Step(sessions_[1], 1, 1, 1)->status());
  ASSERT_OK(first->status());
  ExpectValues(-3, -3);
  // None anywhere.
  ASSERT_OK(fleet_.Push(sessions_[1], 2, {{"a", 2}}));
  const auto second = fleet_.Step(sessions_[0], 2, 3, 3, Partial("", {}));
  ASSERT_OK(fleet_.Step(sessions_[1], 2, 2, 2)->status());
  ASSERT_OK(second->status());
  ExpectValues(-4, -3);
}

TEST_F(StepTest, OnlyServersThatAPushWasSentToCanLackIt) {
  Start(Asynchronous(9), {{"lr", 1.0}}, /*b=*/Whole{1});
  const auto step = fleet_.Step(sessions_[0], 1, 1, 3, Partial("\x02", {{1, {1, 2}}}));
  ASSERT_EQ(ReasonOf(step->status()), v1::MISSING);
  const v1::ErrorDetail detail = *ErrorDetailOf(step->status());
  ASSERT_EQ(detail.missing_size(), 1);
  EXPECT_EQ(detail.missing(0).server_rank(), 1);
  EXPECT_EQ(detail.missing(0).pushes(0).first(), 1u);
  EXPECT_EQ(detail.missing(0).pushes(0).last(), 2u);
}

TEST_F(StepTest, AStepThatSaysOtherThanItsPushesIsRefused) {
  Start(Asynchronous(9));
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 4}}));
  ASSERT_OK(fleet_.Push(sessions_[0], 2, {{"a", 1}}));
  const auto expect_refused = [this](const v1::StepRequest& partial, const std::string& words) {
    EXPECT_THAT(fleet_.Step(sessions_[0], 1, 1, 2, partial)->status(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(words)));
  };
  const std::vector<uint64_t> both = {1, 2};
  expect_refused(
      Partial("\x01", {{0, both}, {1, both}}),
      "trainer rank 0: parameter \"a\": push 1 touches it, but was not sent to server 2, "
      "which has a shard of it");
  expect_refused(Partial("\x01", {{0, both}, {1, both}, {2, {1}}}),
                 "push 2 touches it, but was not sent to server 2");
  const std::map<int, std::vector<uint64_t>> all = {{0, both}, {1, both}, {2, both}};
  expect_refused(Partial("", all),
                 "its pushes touch nothing of it, those sent to server 0 touch "
                 "the whole");
  expect_refused(Partial("\x03", all),
                 "parameter \"b\": its step says that its pushes touch the "
                 "whole of it, those sent to server 0 touch nothing");
  v1::StepRequest rows = Partial("\x01", all);
  rows.mutable_partial()->set_rows("\x01");
  expect_refused(rows, "touch rows of it, those sent to server 0 touch the whole");
  ExpectValues(0, 0);
  ASSERT_OK(fleet_.Step(sessions_[0], 1, 1, 2, Partial("\x01", all))->status());
  ExpectValues(-5, 0);
}

TEST_F(StepTest, KeepsGradientsWhenAsked) {
  Start(Synchronous(1));
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}));
  v1::StepRequest keep;
  keep.mutable_options()->set_keep_gradients(true);
  ASSERT_OK(fleet_.Step(sessions_[0], 1, 1, 1, keep)->status());
  ASSERT_OK(fleet_.Step(sessions_[0], 2, 1, 1)->status());
  ExpectValues(-2, 0);
  // Consumed now.
  EXPECT_EQ(ReasonOf(fleet_.Step(sessions_[0], 3, 1, 1)->status()), v1::MISSING);
}

TEST_F(StepTest, DropsPushesBelowTheFirstLiveOne) {
  Start(Synchronous(1));
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}));
  ASSERT_OK(fleet_.Push(sessions_[0], 2, {{"a", 5}}, 1, 0, -1, /*first_live_push=*/2));
  EXPECT_EQ(ReasonOf(fleet_.Step(sessions_[0], 1, 1, 2)->status()), v1::MISSING);
  ASSERT_OK(fleet_.Step(sessions_[0], 1, 2, 2)->status());
  ExpectValues(-5, 0);
}

TEST_F(StepTest, ClipsByTheGlobalNorm) {
  Start(Synchronous(1));
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 3}, {"b", 3}}));
  v1::StepRequest clip;
  clip.mutable_options()->set_clip_grad_norm(1);
  const auto step = fleet_.Step(sessions_[0], 1, 1, 1, clip);
  ASSERT_OK(step->status());
  const float norm = std::sqrt(108.0f);
  EXPECT_EQ((*step)->committed().grad_norm(), norm);
  ExpectValues(-(3 * (1.0f / (norm + 1e-6f))), -(3 * (1.0f / (norm + 1e-6f))));
}

TEST_F(StepTest, RepeatedStepCommitsOnceAndAnswersTheSame) {
  Start(Synchronous(1));
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}));
  ASSERT_OK(fleet_.Step(sessions_[0], 1, 1, 1)->status());
  const auto again = fleet_.Step(sessions_[0], 1, 1, 1);
  ASSERT_OK(again->status());
  EXPECT_EQ((*again)->committed().version(), 1u);
  ExpectValues(-1, 0);
  v1::StepRequest other;
  other.mutable_options()->set_clip_grad_norm(1);
  const absl::Status reused = fleet_.Step(sessions_[0], 1, 1, 1, other)->status();
  EXPECT_THAT(reused, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("other contents")));
  EXPECT_EQ(ReasonOf(reused), v1::SEQ_REUSE);
}

TEST_F(StepTest, RepeatedPushAddsNothing) {
  Start(Synchronous(1));
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}));
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}));
  EXPECT_EQ(ReasonOf(fleet_.Push(sessions_[0], 1, {{"a", 2}})), v1::SEQ_REUSE);
  ASSERT_OK(fleet_.Step(sessions_[0], 1, 1, 1)->status());
  ExpectValues(-1, 0);
  // Also once a step has consumed it.
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}));
  EXPECT_EQ(ReasonOf(fleet_.Push(sessions_[0], 1, {{"a", 2}})), v1::SEQ_REUSE);
  ASSERT_OK(fleet_.Step(sessions_[0], 2, 2, 1)->status());
  ExpectValues(-1, 0);
}

TEST_F(StepTest, NamesMissingPushesAndGoesOnOnceTheyAreThere) {
  Start(Synchronous(1));
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}, 1, 0, /*only_server=*/0));
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}, 1, 0, /*only_server=*/1));
  const absl::Status missing = fleet_.Step(sessions_[0], 1, 1, 1)->status();
  EXPECT_THAT(missing, StatusIs(absl::StatusCode::kAborted, HasSubstr("server 2 lacks pushes 1")));
  ASSERT_EQ(ReasonOf(missing), v1::MISSING);
  EXPECT_EQ(ErrorDetailOf(missing)->missing(0).server_rank(), 2);
  ExpectValues(0, 0);
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}));
  ASSERT_OK(fleet_.Step(sessions_[0], 1, 1, 1)->status());
  ExpectValues(-1, 0);
}

TEST_F(StepTest, NonFinitePoliciesActOnAllServersOrNone) {
  Start(Synchronous(1));
  const float inf = std::numeric_limits<float>::infinity();
  // Only the elements of b on the last server are infinite: all servers follow.
  v1::StepRequest policy;
  policy.mutable_options()->set_non_finite(v1::REFUSE);
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}, {"b", inf}}));
  const absl::Status refused = fleet_.Step(sessions_[0], 1, 1, 1, policy)->status();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kAborted, HasSubstr("parameter \"b\"")));
  EXPECT_EQ(ReasonOf(refused), v1::NONFINITE);
  ExpectValues(0, 0);
  // Its pushes are gone.
  EXPECT_EQ(ReasonOf(fleet_.Step(sessions_[0], 1, 1, 1, policy)->status()), v1::MISSING);
  policy.mutable_options()->set_non_finite(v1::SKIP);
  ASSERT_OK(fleet_.Push(sessions_[0], 2, {{"a", 1}, {"b", inf}}));
  const auto skipped = fleet_.Step(sessions_[0], 1, 2, 2, policy);
  ASSERT_OK(skipped->status());
  EXPECT_TRUE((*skipped)->committed().skipped());
  EXPECT_EQ((*skipped)->committed().version(), 1u);
  ExpectValues(0, 0);
  policy.mutable_options()->set_non_finite(v1::PROPAGATE);
  ASSERT_OK(fleet_.Push(sessions_[0], 3, {{"a", 1}, {"b", inf}}));
  ASSERT_OK(fleet_.Step(sessions_[0], 2, 3, 3, policy)->status());
  ExpectValues(-1, -inf);
}

TEST_F(StepTest, RefusesUnequalOptionsOfTwoTrainers) {
  Start(Synchronous(2));
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}));
  ASSERT_OK(fleet_.Push(sessions_[1], 1, {{"a", 1}}));
  v1::StepRequest clip;
  clip.mutable_options()->set_clip_grad_norm(2);
  const auto first = fleet_.Step(sessions_[0], 1, 1, 1);
  const auto second = fleet_.Step(sessions_[1], 1, 1, 1, clip);
  for (const auto* step : {first.get(), second.get()}) {
    EXPECT_THAT(step->status(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("clip_grad_norm")));
  }
  const auto third = fleet_.Step(sessions_[0], 1, 1, 1);
  ASSERT_OK(fleet_.Step(sessions_[1], 1, 1, 1)->status());
  ExpectValues(-1, 0);
}

TEST_F(StepTest, SetOptionsPersist) {
  Start(Synchronous(1));
  v1::StepRequest set;
  v1::OptionSetting* setting = set.add_set_options();
  setting->mutable_option()->set_name("lr");
  setting->mutable_option()->mutable_value()->set_double_value(-0.5);
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}));
  EXPECT_THAT(fleet_.Step(sessions_[0], 1, 1, 1, set)->status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("Invalid learning rate")));
  setting->mutable_option()->mutable_value()->set_double_value(0.5);
  ASSERT_OK(fleet_.Step(sessions_[0], 1, 1, 1, set)->status());
  ExpectValues(-0.5, 0);
  ASSERT_OK(fleet_.Push(sessions_[0], 2, {{"a", 1}}));
  ASSERT_OK(fleet_.Step(sessions_[0], 2, 2, 2)->status());
  ExpectValues(-1, 0);
}

TEST_F(StepTest, RefusesGradientsThatAreTooOld) {
  Start(Asynchronous(1));
  for (uint64_t i = 1; i <= 3; ++i) {
    ASSERT_OK(fleet_.Push(sessions_[0], i, {{"a", 1}}, 1, /*computed_on=*/i - 1));
    ASSERT_OK(fleet_.Step(sessions_[0], i, i, i)->status());
  }
  ASSERT_OK(fleet_.Push(sessions_[1], 1, {{"a", 1}}, 1, /*computed_on=*/1));
  const absl::Status old = fleet_.Step(sessions_[1], 1, 1, 1)->status();
  EXPECT_THAT(old, StatusIs(absl::StatusCode::kAborted, HasSubstr("2 versions old")));
  EXPECT_EQ(ReasonOf(old), v1::GRADIENT_TOO_OLD);
  ASSERT_OK(fleet_.Push(sessions_[1], 2, {{"a", 1}}, 1, /*computed_on=*/2));
  ASSERT_OK(fleet_.Step(sessions_[1], 1, 2, 2)->status());
  ExpectValues(-4, 0);
}

TEST_F(StepTest, AbortOfOneVersionPreparesThoseAboveItAgain) {
  Start(Asynchronous(100));
  // The first step waits for server 2, whose messages are held up, and the others for its round;
  // the second lacks a push there.
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}));
  ASSERT_OK(fleet_.Push(sessions_[1], 1, {{"a", 10}}, 1, 0, /*only_server=*/0));
  ASSERT_OK(fleet_.Push(sessions_[1], 1, {{"a", 10}}, 1, 0, /*only_server=*/1));
  ASSERT_OK(fleet_.Push(sessions_[2], 1, {{"a", 100}}));
  fleet_.Cut(2);
  const auto first = fleet_.Step(sessions_[0], 1, 1, 1);
  const auto second = fleet_.Step(sessions_[1], 1, 1, 1);
  const auto third = fleet_.Step(sessions_[2], 1, 1, 1);
  EXPECT_FALSE(third->there());
  fleet_.Heal(2);
  ASSERT_OK(first->status());
  EXPECT_EQ(ReasonOf(second->status()), v1::MISSING);
  ASSERT_OK(third->status());
  EXPECT_EQ((*first)->committed().version(), 1u);
  EXPECT_EQ((*third)->committed().version(), 2u);
  ExpectValues(-101, 0);
}

TEST_F(StepTest, StepsCalledDuringARoundOfPreparesStartTogether) {
  Start(Asynchronous(100));
  for (const uint64_t session : sessions_) ASSERT_OK(fleet_.Push(session, 1, {{"a", 1}}));
  fleet_.Cut(2);
  std::vector<std::unique_ptr<Answer<v1::StepReply>>> steps;
  for (const uint64_t session : sessions_) {
    steps.push_back(fleet_.Step(session, 1, 1, 1, {}, absl::Seconds(5)));
  }
  // Nobody else than the server that does not answer holds them up.
  fleet_.Advance(absl::Seconds(6));
  for (const auto& step : steps) {
    ASSERT_TRUE(step->there());
    ASSERT_TRUE((*step)->has_waiting()) << (*step)->ShortDebugString();
    EXPECT_THAT((*step)->waiting().servers(), testing::ElementsAre(2));
  }
  const int before = fleet_.batches(2);
  fleet_.Heal(2);
  for (size_t i = 0; i < sessions_.size(); ++i) {
    const auto again = fleet_.Step(sessions_[i], 1, 1, 1);
    ASSERT_OK(again->status());
    EXPECT_EQ((*again)->committed().version(), i + 1);
  }
  // The hello; a prepare; its commit and the other three prepares; their commits.
  EXPECT_EQ(fleet_.batches(2) - before, 4);
}

TEST_F(StepTest, MessagesLostOnTheWayAreSentAgain) {
  Start(Synchronous(1));
  for (uint64_t i = 1; i <= 6; ++i) {
    ASSERT_OK(fleet_.Push(sessions_[0], i, {{"a", 1}}));
    fleet_.Cut(i % 3);
    const auto step = fleet_.Step(sessions_[0], i, i, i);
    EXPECT_FALSE(step->there());
    fleet_.Heal(i % 3);
    ASSERT_OK(step->status());
  }
  ExpectValues(-6, 0);
}

TEST_F(StepTest, WaitingCallNamesWhomItWaitsFor) {
  Start(Synchronous(2));
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}));
  fleet_.Advance(absl::Seconds(2));
  const auto first = fleet_.Step(sessions_[0], 1, 1, 1, {}, absl::Seconds(5));
  fleet_.Advance(absl::Seconds(6));
  ASSERT_OK(first->status());
  ASSERT_TRUE((*first)->has_waiting());
  ASSERT_EQ((*first)->waiting().trainers_size(), 1);
  EXPECT_EQ((*first)->waiting().trainers(0).trainer_rank(), 1);
  EXPECT_GE((*first)->waiting().trainers(0).last_seen_ms(), 7000);
  // It attaches again, and the barrier closes.
  const auto repeat = fleet_.Step(sessions_[0], 1, 1, 1);
  EXPECT_FALSE(repeat->there());
  ASSERT_OK(fleet_.Push(sessions_[1], 1, {{"a", 1}}));
  ASSERT_OK(fleet_.Step(sessions_[1], 1, 1, 1)->status());
  ASSERT_OK(repeat->status());
  ExpectValues(-1, 0);
}

TEST_F(StepTest, TrainerLostInABarrierIsReplaced) {
  Start(Synchronous(2));
  ASSERT_OK(fleet_.Push(sessions_[1], 1, {{"a", 9}}));
  // Trainer rank 1 goes silent. Rank 0's open call keeps its own lease.
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}));
  const auto waiting = fleet_.Step(sessions_[0], 1, 1, 1, {}, absl::Minutes(5));
  fleet_.Advance(absl::Seconds(31));
  EXPECT_EQ(ReasonOf(waiting->status()), v1::PARTICIPANT_LOST);
  EXPECT_THAT(waiting->status(), StatusIs(absl::StatusCode::kAborted, HasSubstr("trainer rank 1")));
  EXPECT_EQ(ReasonOf(fleet_.Step(sessions_[0], 1, 1, 1)->status()), v1::PARTICIPANT_LOST);
  const uint64_t replacement = fleet_.OpenSession(1, "another instance");
  ASSERT_NE(replacement, 0u);
  EXPECT_EQ(ReasonOf(fleet_.Push(sessions_[1], 2, {{"a", 9}})), v1::FENCED);
  EXPECT_EQ(ReasonOf(fleet_.Step(sessions_[1], 1, 1, 1)->status()), v1::FENCED);
  ASSERT_OK(fleet_.Push(replacement, 1, {{"a", 3}}));
  const auto again = fleet_.Step(sessions_[0], 1, 1, 1);
  ASSERT_OK(fleet_.Step(replacement, 1, 1, 1)->status());
  ASSERT_OK(again->status());
  ExpectValues(-2, 0);  // the dead session's push did not count
}

TEST_F(StepTest, TrainerStateComesBackToTheNextSession) {
  Start(Synchronous(1));
  v1::StepRequest with_state;
  with_state.set_trainer_state("epoch 3");
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}));
  ASSERT_OK(fleet_.Step(sessions_[0], 1, 1, 1, with_state)->status());
  v1::OpenSessionRequest request;
  request.set_instance("next");
  Answer<v1::OpenSessionReply> answer;
  fleet_.coordinator().OpenSession(request, {fleet_.clock().Now() + absl::Minutes(1)},
                                   answer.reply());
  ASSERT_OK(answer.status());
  EXPECT_EQ(answer->trainer_state(), "epoch 3");
  EXPECT_EQ(answer->last_version(), 1u);
  EXPECT_EQ(answer->last_call(), 1u);
}

TEST_F(StepTest, PauseOfTheCoordinatorExpelsNobody) {
  Start(Synchronous(2));
  fleet_.clock().Advance(absl::Hours(1));
  fleet_.Advance(absl::Seconds(1));
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}));
  ASSERT_OK(fleet_.Push(sessions_[1], 1, {{"a", 1}}));
  const auto first = fleet_.Step(sessions_[0], 1, 1, 1);
  ASSERT_OK(fleet_.Step(sessions_[1], 1, 1, 1)->status());
  ASSERT_OK(first->status());
}

TEST_F(StepTest, EarlyCallWaitsForTheOneBeforeIt) {
  Start(Asynchronous(100));
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}));
  ASSERT_OK(fleet_.Push(sessions_[0], 2, {{"a", 10}}));
  const auto second = fleet_.Step(sessions_[0], 2, 2, 2);
  EXPECT_FALSE(second->there());
  const auto first = fleet_.Step(sessions_[0], 1, 1, 1);
  ASSERT_OK(first->status());
  ASSERT_OK(second->status());
  EXPECT_EQ((*first)->committed().version(), 1u);
  EXPECT_EQ((*second)->committed().version(), 2u);
}

TEST_F(StepTest, StepStatusTellsWhatBecameOfACall) {
  Start(Synchronous(2));
  const auto state_of = [&](uint64_t sequence) {
    v1::StepStatusRequest request;
    request.mutable_header()->set_session(sessions_[0]);
    request.mutable_header()->set_sequence(sequence);
    Answer<v1::StepStatusReply> answer;
    fleet_.coordinator().StepStatus(request, answer.reply());
    return answer->state();
  };
  EXPECT_EQ(state_of(2), v1::StepStatusReply::UNKNOWN);
  ASSERT_OK(fleet_.Push(sessions_[0], 1, {{"a", 1}}));
  const auto first = fleet_.Step(sessions_[0], 1, 1, 1);
  EXPECT_EQ(state_of(1), v1::StepStatusReply::PENDING);
  ASSERT_OK(fleet_.Step(sessions_[1], 1, 1, 0)->status());
  EXPECT_EQ(state_of(1), v1::StepStatusReply::COMMITTED);
  EXPECT_EQ(state_of(2), v1::StepStatusReply::ABORTED);  // may be called (again)
}

}  // namespace
}  // namespace shardstep
