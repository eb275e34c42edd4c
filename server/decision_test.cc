#include "shardstep/server/decision.h"

#include <cmath>

#include "gtest/gtest.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

class DecisionTest : public ::testing::Test {
 protected:
  DecisionTest() : answers_(2) {
    request_.set_version(5);
    request_.mutable_step();
    for (const char* name : {"a", "b"}) {
      v1::Parameter* parameter = definition_.add_parameters();
      parameter->set_name(name);
      parameter->set_dtype(v1::FLOAT32);
    }
    definition_.mutable_mode()->mutable_synchronous()->set_trainers(1);
  }
  Verdict Run() const { return Decide(request_, answers_, definition_, facts_); }

  v1::Prepare request_;
  std::vector<v1::Prepared> answers_;
  v1::OptimizerDefinition definition_;
  OptimizerFacts facts_{"m", 4, 1, 1, "plan", ""};
};

TEST_F(DecisionTest, NormIsOverAllServersAndTheCoefficientFollows) {
  answers_[0].set_squared_norm_hi(9);
  answers_[1].set_squared_norm_hi(16);
  EXPECT_EQ(Run().decision.grad_norm(), 5);
  EXPECT_FALSE(Run().decision.has_coefficient());
  request_.mutable_step()->mutable_options()->set_clip_grad_norm(10);
  EXPECT_EQ(Run().decision.coefficient(), 1);
  request_.mutable_step()->mutable_options()->set_clip_grad_norm(1);
  EXPECT_EQ(Run().decision.coefficient(), 1.0f / (5.0f + 1e-6f));
}

TEST_F(DecisionTest, OneServersNonFiniteGradientDecidesForAll) {
  answers_[1].set_non_finite(true);
  answers_[1].set_non_finite_parameter(1);
  answers_[1].set_squared_norm_hi(INFINITY);
  EXPECT_EQ(Run().decision.outcome(), v1::Decision::COMMIT);
  request_.mutable_step()->mutable_options()->set_non_finite(v1::SKIP);
  EXPECT_EQ(Run().decision.outcome(), v1::Decision::SKIP);
  request_.mutable_step()->mutable_options()->set_non_finite(v1::REFUSE);
  const Verdict refused = Run();
  EXPECT_EQ(refused.decision.outcome(), v1::Decision::ABORT);
  EXPECT_TRUE(refused.decision.drop_pushes());
  EXPECT_EQ(ReasonOf(refused.reason), v1::NONFINITE);
  EXPECT_NE(refused.reason.message().find("\"b\""), absl::string_view::npos);
}

TEST_F(DecisionTest, ServersThatSawDifferentParametersTouchedAbort) {
  answers_[0].set_touched_digest(1);
  answers_[1].set_touched_digest(2);
  EXPECT_EQ(Run().decision.outcome(), v1::Decision::ABORT);
  EXPECT_FALSE(Run().decision.drop_pushes());
}

TEST_F(DecisionTest, AnyServersErrorOrMissingPushesAbort) {
  v1::PushRange* range = answers_[1].add_missing();
  range->set_session(7);
  range->set_first(2);
  range->set_last(3);
  EXPECT_EQ(ReasonOf(Run().reason), v1::MISSING);
  *answers_[0].mutable_error() = ToRichStatus(absl::InternalError("broken"));
  EXPECT_EQ(Run().reason.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(Run().decision.outcome(), v1::Decision::ABORT);
}

TEST_F(DecisionTest, StalenessCountsFromTheVersionTheStepWouldBecome) {
  definition_.mutable_mode()->mutable_asynchronous()->set_max_staleness(2);
  answers_[0].set_computed_on(2);
  EXPECT_EQ(Run().decision.outcome(), v1::Decision::COMMIT);  // 5 - 1 - 2
  answers_[1].set_computed_on(1);
  EXPECT_EQ(ReasonOf(Run().reason), v1::GRADIENT_TOO_OLD);
  EXPECT_TRUE(Run().decision.drop_pushes());
}

}  // namespace
}  // namespace shardstep
