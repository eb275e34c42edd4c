// Steps of one trainer.

#include <algorithm>
#include <cmath>
#include <limits>
#include <variant>
#include <vector>

#include "shardstep/tests/conformance.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_P(ConformanceTest, PushStepPullAndState) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(SGDOptions(0.5).momentum(0.5)));
  const Floats ones = Parameters().Like(1);
  ASSERT_OK_AND_ASSIGN(const StepResult first, PushAndStep(optimizer, ones));
  EXPECT_EQ(first.version, 1u);
  EXPECT_FALSE(first.skipped);
  EXPECT_EQ(first.grad_norm, std::sqrt(12.0f));
  ASSERT_OK_AND_ASSIGN(const StepResult second, PushAndStep(optimizer, ones));
  EXPECT_EQ(second.version, 2u);
  EXPECT_EQ(optimizer.version(), 2u);
  ExpectValues(optimizer, -1.25, -1.25);  // 0.5 * 1, then 0.5 * 1.5
  ASSERT_OK_AND_ASSIGN(const StateDict state, optimizer.state());
  EXPECT_EQ(state.version, 2u);
  ASSERT_EQ(state.state.size(), 2u);
  const auto& buffer = std::get<HostTensor>(state.state.at("a").at("momentum_buffer"));
  EXPECT_EQ(buffer.sizes, Shape{7});
  ASSERT_EQ(buffer.bytes.size(), 7 * sizeof(float));
  const auto* const values = reinterpret_cast<const float*>(buffer.bytes.data());
  EXPECT_THAT(std::vector<float>(values, values + 7), Each(1.5));
  ASSERT_EQ(state.param_groups.size(), 1u);
  EXPECT_THAT(state.param_groups[0].params, ElementsAre("a", "b"));
  EXPECT_EQ(state.param_groups[0].options.Number("momentum"), 0.5);
}

TEST_P(ConformanceTest, ZeroGradDropsOrMakesZeros) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(SGDOptions(1.0).weight_decay(0.5)));
  const Floats ones = Parameters().Like(1);
  ASSERT_OK(PushAndStep(optimizer, ones));  // both are -1
  Floats only_a;
  only_a.Add("a", {7}, 100);
  ASSERT_OK(Push(optimizer, only_a));
  ASSERT_OK(optimizer.ZeroGrad(/*set_to_none=*/false));
  ASSERT_OK(optimizer.Step());
  ExpectValues(optimizer, -0.5, -1);  // a decays by a gradient of zeros; b has none
  ASSERT_OK(Push(optimizer, only_a));
  ASSERT_OK(optimizer.ZeroGrad());
  ASSERT_OK(optimizer.Step());
  ExpectValues(optimizer, -0.5, -1);
  EXPECT_EQ(optimizer.version(), 3u);
}

TEST_P(ConformanceTest, NoneIsNotZero) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(AdamOptions(1.0)));
  Floats zeros;
  zeros.Add("b", {5});
  ASSERT_OK(PushAndStep(optimizer, zeros));
  ASSERT_OK_AND_ASSIGN(const StateDict first, optimizer.state());
  EXPECT_EQ(first.state.count("a"), 0u);
  EXPECT_EQ(std::get<double>(first.state.at("b").at("step")), 1);
  ASSERT_OK(PushAndStep(optimizer, Parameters()));
  ASSERT_OK_AND_ASSIGN(const StateDict second, optimizer.state());
  EXPECT_EQ(std::get<double>(second.state.at("a").at("step")), 1);
  EXPECT_EQ(std::get<double>(second.state.at("b").at("step")), 2);
}

TEST_P(ConformanceTest, KeepsGradients) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create());
  const Floats ones = Parameters().Like(1);
  StepOptions keep;
  keep.keep_gradients = true;
  ASSERT_OK(PushAndStep(optimizer, ones, keep));
  ASSERT_OK(optimizer.Step(keep));
  ExpectValues(optimizer, -2, -2);
  ASSERT_OK(PushAndStep(optimizer, ones));  // as PyTorch adds to .grad
  ExpectValues(optimizer, -4, -4);
  ASSERT_OK(optimizer.Step());
  ExpectValues(optimizer, -4, -4);
}

TEST_P(ConformanceTest, AccumulatesPushesAndScales) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create());
  const Floats ones = Parameters().Like(1), threes = Parameters().Like(3);
  ASSERT_OK(Push(optimizer, ones));
  ASSERT_OK(Push(optimizer, threes));
  StepOptions options;
  options.grad_scale = 4;
  options.clip_grad_norm = 1;
  ASSERT_OK_AND_ASSIGN(const StepResult step, optimizer.Step(options));
  const float norm = std::sqrt(12.0f);
  EXPECT_EQ(step.grad_norm, norm);
  const float clipped = 1.0f * std::min(1.0f, 1.0f / (norm + 1e-6f));
  ExpectValues(optimizer, -clipped, -clipped);
}

TEST_P(ConformanceTest, GradScaleDoesNotRewriteKeptGradients) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create());
  Floats ones = Parameters().Like(1), sevens = Parameters().Like(7);
  ASSERT_OK(Push(optimizer, ones));
  ASSERT_OK(Push(optimizer, sevens));
  StepOptions options;
  options.grad_scale = 4;
  options.keep_gradients = true;
  ASSERT_OK(optimizer.Step(options));
  ASSERT_OK(optimizer.Step(options));
  ExpectValues(optimizer, -4, -4);
  EXPECT_THAT(ones["a"], Each(1));
  EXPECT_THAT(sevens["a"], Each(7));
}

TEST_P(ConformanceTest, ASkippedStepIsNotCounted) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(AdamOptions(1.0)));
  ASSERT_OK(PushAndStep(optimizer, Parameters().Like(1)));
  ASSERT_OK_AND_ASSIGN(const StateDict before, optimizer.state());
  Floats infinite = Parameters().Like(1);
  infinite["b"][0] = std::numeric_limits<float>::infinity();
  StepOptions skip;
  skip.non_finite = NonFinite::kSkip;
  ASSERT_OK_AND_ASSIGN(const StepResult skipped, PushAndStep(optimizer, infinite, skip));
  EXPECT_TRUE(skipped.skipped);
  ASSERT_OK_AND_ASSIGN(const StateDict after, optimizer.state());
  for (const char* name : {"a", "b"}) {
    EXPECT_EQ(std::get<double>(after.state.at(name).at("step")), 1) << name;
    for (const char* state : {"exp_avg", "exp_avg_sq"}) {
      EXPECT_EQ(std::get<HostTensor>(after.state.at(name).at(state)).bytes,
                std::get<HostTensor>(before.state.at(name).at(state)).bytes)
          << name << " " << state;
    }
  }
}

TEST_P(ConformanceTest, NonFinitePoliciesActOnAllServersOrNone) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create(AdamOptions(1.0)));
  Floats infinite = Parameters().Like(1);
  infinite["a"][6] = std::numeric_limits<float>::infinity();  // on the last server alone
  StepOptions options;
  options.non_finite = NonFinite::kRefuse;
  const absl::Status refused = PushAndStep(optimizer, infinite, options).status();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kAborted, HasSubstr("\"a\"")));
  EXPECT_EQ(ReasonOf(refused), v1::NONFINITE);
  EXPECT_EQ(optimizer.version(), 0u);
  options.non_finite = NonFinite::kSkip;
  ASSERT_OK_AND_ASSIGN(const StepResult skipped, PushAndStep(optimizer, infinite, options));
  EXPECT_TRUE(skipped.skipped);
  EXPECT_EQ(skipped.version, 1u);
  ExpectValues(optimizer, 0, 0);
  ASSERT_OK_AND_ASSIGN(const StateDict untouched, optimizer.state());
  EXPECT_TRUE(untouched.state.empty());
  ASSERT_OK_AND_ASSIGN(const StepResult taken, PushAndStep(optimizer, infinite));
  EXPECT_FALSE(taken.skipped);
  Floats values = Parameters();
  ASSERT_OK(optimizer.Pull(values.named()));
  EXPECT_TRUE(std::isnan(values["a"][6]));
  EXPECT_LT(values["a"][0], 0);
}

TEST_P(ConformanceTest, ClosureRunsOnceAndTrainerStateComesBack) {
  const Floats ones = Parameters().Like(1);
  {
    ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Create());
    EXPECT_EQ(optimizer.trainer_state(), "");
    ASSERT_OK(optimizer.set_trainer_state("batch 17"));
    int runs = 0;
    ASSERT_OK_AND_ASSIGN(const StepResult step, optimizer.Step({}, [&]() -> absl::StatusOr<double> {
      ++runs;
      const absl::Status pushed = Push(optimizer, ones);
      if (!pushed.ok()) return pushed;
      return 0.5;
    }));
    EXPECT_EQ(runs, 1);
    EXPECT_EQ(step.loss, 0.5);
  }
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer again, Create());
  EXPECT_EQ(again.trainer_state(), "batch 17");
  EXPECT_EQ(again.version(), 1u);
  ExpectValues(again, -1, -1);
}

}  // namespace
}  // namespace shardstep
