#include "shardstep/optim/local_optimizer.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "shardstep/optim/optimizer_factory.h"
#include "shardstep/optim/options/optimizer_options.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

at::Tensor Doubles(const std::vector<double>& values) {
  return at::tensor(values, at::TensorOptions().dtype(at::kDouble));
}

std::vector<double> Values(const at::Tensor& tensor) {
  const double* data = tensor.const_data_ptr<double>();
  return std::vector<double>(data, data + tensor.numel());
}

absl::StatusOr<LocalOptimizer> Make(const OptimizerOptions& options,
                                    const std::vector<std::string>& names,
                                    std::vector<ShardValue> shards) {
  absl::StatusOr<OptionMap> full = CompleteOptions(options.kind, options.given);
  EXPECT_OK(full);
  return LocalOptimizer::Create(options.kind, {{*full, names}}, names, std::move(shards));
}

LocalOptimizer MakeOne(const OptimizerOptions& options, std::vector<double> value) {
  std::vector<ShardValue> shards;
  shards.push_back({0, Doubles(value)});
  absl::StatusOr<LocalOptimizer> made = Make(options, {"w"}, std::move(shards));
  EXPECT_OK(made);
  return *std::move(made);
}

void Step(LocalOptimizer& optimizer, std::vector<ShardGradient> gradients,
          std::optional<double> coefficient = std::nullopt) {
  ASSERT_OK(optimizer.BeginStep(std::move(gradients), coefficient));
  for (size_t i = 0; i < optimizer.num_blocks(); ++i) optimizer.RunBlock(i);
  ASSERT_OK(optimizer.FinishStep());
}

std::vector<double> Value(const LocalOptimizer& optimizer, size_t shard = 0) {
  return Values(optimizer.state().shards[shard].value);
}

std::vector<double> State(const LocalOptimizer& optimizer, absl::string_view name) {
  for (const TensorState& state : optimizer.state().shards[0].states) {
    if (state.name == name) return Values(state.tensor);
  }
  ADD_FAILURE() << "no state " << name;
  return {};
}

TEST(LocalOptimizerTest, NoGradientIsNotAZeroGradient) {
  std::vector<ShardValue> shards;
  shards.push_back({0, Doubles({1})});
  shards.push_back({1, Doubles({1})});
  ASSERT_OK_AND_ASSIGN(LocalOptimizer optimizer, Make(AdamOptions(0.1).weight_decay(0.5),
                                                      {"none", "zero"}, std::move(shards)));
  Step(optimizer, {at::Tensor(), Doubles({0})});
  EXPECT_THAT(Value(optimizer, 0), ElementsAre(1));
  EXPECT_TRUE(optimizer.state().shards[0].states.empty());
  EXPECT_TRUE(optimizer.state().scalars[0].empty());
  EXPECT_LT(Value(optimizer, 1)[0], 1);
  EXPECT_EQ(optimizer.state().shards[1].states.size(), 2);
  ASSERT_EQ(optimizer.state().scalars[1].size(), 1);
  EXPECT_EQ(optimizer.state().scalars[1][0].name, "step");
  EXPECT_EQ(optimizer.state().scalars[1][0].value, 1);
  EXPECT_EQ(optimizer.state().scalars[1][0].dtype, DType::kFloat32);
}

TEST(LocalOptimizerTest, FirstMomentumIsTheGradientUndamped) {
  LocalOptimizer optimizer = MakeOne(SGDOptions(1).momentum(0.5).dampening(0.75), {10});
  Step(optimizer, {Doubles({4})});
  EXPECT_THAT(State(optimizer, "momentum_buffer"), ElementsAre(4));
  EXPECT_THAT(Value(optimizer), ElementsAre(6));
  Step(optimizer, {Doubles({8})});
  EXPECT_THAT(State(optimizer, "momentum_buffer"), ElementsAre(4 * 0.5 + 8 * 0.25));
  EXPECT_THAT(Value(optimizer), ElementsAre(2));
}

TEST(LocalOptimizerTest, AFirstStepIsOneParametersAlone) {
  std::vector<ShardValue> shards;
  shards.push_back({0, Doubles({0})});
  shards.push_back({1, Doubles({0})});
  ASSERT_OK_AND_ASSIGN(LocalOptimizer optimizer, Make(SGDOptions(1).momentum(0.5).dampening(0.75),
                                                      {"early", "late"}, std::move(shards)));
  Step(optimizer, {Doubles({4}), at::Tensor()});
  Step(optimizer, {Doubles({8}), Doubles({8})});
  const auto buffer = [&](size_t shard) {
    return Values(optimizer.state().shards[shard].states[0].tensor);
  };
  EXPECT_THAT(buffer(0), ElementsAre(4 * 0.5 + 8 * 0.25));
  EXPECT_THAT(buffer(1), ElementsAre(8));
}

TEST(LocalOptimizerTest, MomentumBufferDoesNotShareTheGradientsMemory) {
  LocalOptimizer optimizer = MakeOne(SGDOptions(1).momentum(0.5), {10});
  const at::Tensor gradient = Doubles({4});
  Step(optimizer, {gradient});
  Step(optimizer, {gradient});
  EXPECT_THAT(Values(gradient), ElementsAre(4));
  EXPECT_THAT(State(optimizer, "momentum_buffer"), ElementsAre(6));
}

TEST(LocalOptimizerTest, MaximizeNegatesBeforeDecay) {
  LocalOptimizer optimizer = MakeOne(SGDOptions(1).weight_decay(0.5).maximize(true), {8});
  Step(optimizer, {Doubles({1})});
  EXPECT_THAT(Value(optimizer), ElementsAre(8 - (-1 + 0.5 * 8)));
}

TEST(LocalOptimizerTest, AmsgradTakesTheMaximumOfTheRawMoment) {
  LocalOptimizer optimizer = MakeOne(AdamOptions(0.1).betas(0.5, 0.5).amsgrad(true), {1});
  Step(optimizer, {Doubles({4})});
  Step(optimizer, {Doubles({0})});
  EXPECT_THAT(State(optimizer, "exp_avg_sq"), ElementsAre(4));
  EXPECT_THAT(State(optimizer, "max_exp_avg_sq"), ElementsAre(8));
}

TEST(LocalOptimizerTest, AmsgradMayBeSwitchedOnLater) {
  LocalOptimizer optimizer = MakeOne(AdamOptions(0.1), {1});
  Step(optimizer, {Doubles({4})});
  ASSERT_OK(optimizer.SetOption(0, "amsgrad", true));
  Step(optimizer, {Doubles({0})});
  EXPECT_EQ(State(optimizer, "max_exp_avg_sq"), State(optimizer, "exp_avg_sq"));
}

TEST(LocalOptimizerTest, StepCountIsFloat32AndStopsAt2To24) {
  // A step count past 2^24 shows in bias corrections only; here the counter itself is driven there.
  ASSERT_OK_AND_ASSIGN(const OptionMap options, CompleteOptions("Adam", {}));
  ASSERT_OK_AND_ASSIGN(const auto adam, MakeOptimizer("Adam"));
  double count = 16777215;
  adam->Begin(options, at::kFloat, absl::MakeSpan(&count, 1));
  EXPECT_EQ(count, 16777216);
  adam->Begin(options, at::kFloat, absl::MakeSpan(&count, 1));
  EXPECT_EQ(count, 16777216);
}

// Also where another parameter's lies between them.
TEST(LocalOptimizerTest, TwoShardsOfAParameterShareItsStepCount) {
  std::vector<ShardValue> shards;
  shards.push_back({0, Doubles({1})});
  shards.push_back({0, Doubles({1})});
  shards.push_back({1, Doubles({1})});
  shards.push_back({0, Doubles({1, 3})});
  ASSERT_OK_AND_ASSIGN(LocalOptimizer optimizer,
                       Make(AdamWOptions(), {"w", "b"}, std::move(shards)));
  for (int step = 1; step <= 2; ++step) {
    Step(optimizer, {Doubles({1}), Doubles({1}), Doubles({1}), Doubles({1, 1})});
    for (const std::vector<ScalarState>& scalars : optimizer.state().scalars) {
      ASSERT_EQ(scalars.size(), 1);
      EXPECT_EQ(scalars[0].value, step);
    }
    for (size_t shard = 1; shard < 4; ++shard) {
      EXPECT_EQ(Value(optimizer, shard)[0], Value(optimizer)[0]);
    }
  }
}

TEST(LocalOptimizerTest, CoefficientMultipliesTheGradientFirst) {
  LocalOptimizer clipped = MakeOne(SGDOptions(1).momentum(0.5), {1});
  const at::Tensor gradient = Doubles({3});
  Step(clipped, {gradient}, 0.25);
  EXPECT_THAT(State(clipped, "momentum_buffer"), ElementsAre(0.75));
  EXPECT_THAT(Values(gradient), ElementsAre(3));
}

TEST(LocalOptimizerTest, StepsInPlaceUnlessHeld) {
  LocalOptimizer optimizer = MakeOne(SGDOptions(1).momentum(0.5), {10});
  Step(optimizer, {Doubles({1})});
  const auto value_memory = [&] { return optimizer.state().shards[0].value.const_data_ptr(); };
  const auto state_memory = [&] {
    return optimizer.state().shards[0].states[0].tensor.const_data_ptr();
  };
  const void* value_before = value_memory();
  const void* state_before = state_memory();
  Step(optimizer, {Doubles({1})});
  EXPECT_EQ(value_memory(), value_before);
  EXPECT_EQ(state_memory(), state_before);
  {
    const LocalState snapshot = optimizer.state();
    const std::vector<double> value = Value(optimizer);
    Step(optimizer, {Doubles({1})});
    EXPECT_NE(value_memory(), value_before);
    EXPECT_NE(state_memory(), state_before);
    EXPECT_EQ(Values(snapshot.shards[0].value), value);
    EXPECT_THAT(Values(snapshot.shards[0].states[0].tensor), ElementsAre(1.5));
  }
  // A view of the memory holds it, too. (Made below autograd, which would keep the tensor as well.)
  const void* held = value_memory();
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const at::Tensor view = optimizer.state().shards[0].value.narrow(0, 0, 1);
  Step(optimizer, {Doubles({1})});
  EXPECT_NE(value_memory(), held);
}

TEST(LocalOptimizerTest, CallersTensorsAreNotWritten) {
  const at::Tensor mine = Doubles({1, 2});
  ASSERT_OK_AND_ASSIGN(LocalOptimizer optimizer, Make(SGDOptions(1), {"w"}, {{0, mine}}));
  Step(optimizer, {Doubles({1, 1})});
  EXPECT_THAT(Values(mine), ElementsAre(1, 2));
  EXPECT_THAT(Value(optimizer), ElementsAre(0, 1));
}

TEST(LocalOptimizerTest, OptionsAreSetForGood) {
  LocalOptimizer optimizer = MakeOne(SGDOptions(1), {10});
  ASSERT_OK(optimizer.SetOption(0, "lr", 0.5));
  ASSERT_OK(optimizer.SetOption(0, "initial_lr", 1.0));
  Step(optimizer, {Doubles({2})});
  EXPECT_THAT(Value(optimizer), ElementsAre(9));
  EXPECT_EQ(optimizer.groups()[0].options.Number("initial_lr"), 1);
  EXPECT_THAT(optimizer.SetOption(0, "lr", -2.5),
              StatusIs(absl::StatusCode::kInvalidArgument, "Invalid learning rate: -2.5"));
  EXPECT_THAT(optimizer.SetOption(1, "lr", 1.0),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("param_groups[1]")));
  EXPECT_EQ(optimizer.groups()[0].options.Number("lr"), 0.5);
}

TEST(LocalOptimizerTest, FactorsBeyondFloat32BecomeInfinite) {
  std::vector<ShardValue> shards;
  shards.push_back({0, at::full({1}, 1.0f, at::TensorOptions().dtype(at::kFloat))});
  ASSERT_OK_AND_ASSIGN(LocalOptimizer optimizer, Make(SGDOptions(1e300), {"w"}, std::move(shards)));
  Step(optimizer, {at::full({1}, 1.0f, at::TensorOptions().dtype(at::kFloat))});
  EXPECT_EQ(optimizer.state().shards[0].value.const_data_ptr<float>()[0], -INFINITY);
}

TEST(LocalOptimizerTest, AStepWithoutGradientsChangesNothing) {
  LocalOptimizer optimizer = MakeOne(SGDOptions(1), {10});
  Step(optimizer, {at::Tensor()});
  EXPECT_THAT(Value(optimizer), ElementsAre(10));
}

TEST(LocalOptimizerTest, AnOwnerOfNothingStepsAllTheSame) {
  for (const OptimizerOptions& options :
       {OptimizerOptions(SGDOptions(1)), OptimizerOptions(AdagradOptions())}) {
    ASSERT_OK_AND_ASSIGN(LocalOptimizer optimizer, Make(options, {"w"}, {}));
    Step(optimizer, {});
    EXPECT_THAT(optimizer.state().shards, IsEmpty()) << options.kind;
    EXPECT_THAT(optimizer.state().scalars, ElementsAre(IsEmpty())) << options.kind;
    EXPECT_OK(optimizer.SetOption(0, "lr", 0.5));
  }
}

TEST(LocalOptimizerTest, ARefusedStateChangesNothing) {
  std::vector<ShardValue> shards;
  shards.push_back({0, Doubles({1})});
  shards.push_back({1, Doubles({1})});
  ASSERT_OK_AND_ASSIGN(LocalOptimizer optimizer,
                       Make(SGDOptions(1).momentum(0.5), {"a", "b"}, std::move(shards)));
  Step(optimizer, {Doubles({4}), Doubles({4})});
  std::vector<std::vector<TensorState>> states(2);
  states[0].push_back({"momentum_buffer", Doubles({7})});
  states[1].push_back({"momentum_buffer", Doubles({7, 8})});
  EXPECT_THAT(optimizer.SetState(std::move(states), std::vector<std::vector<ScalarState>>(2)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("of shard 1")));
  EXPECT_THAT(State(optimizer, "momentum_buffer"), ElementsAre(4));
}

TEST(LocalOptimizerTest, RefusesGradientsThatDoNotFit) {
  std::vector<ShardValue> shards;
  shards.push_back({0, Doubles({1, 2})});
  shards.push_back({0, Doubles({3})});
  ASSERT_OK_AND_ASSIGN(LocalOptimizer optimizer, Make(SGDOptions(1), {"w"}, std::move(shards)));
  const auto refused = [&](std::vector<ShardGradient> gradients, const char* text) {
    EXPECT_THAT(optimizer.BeginStep(std::move(gradients), std::nullopt),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text)));
  };
  refused({Doubles({1, 2})}, "each of 2 shards, got 1");
  refused({Doubles({1, 2}), Doubles({1, 2})}, "gradient of shard 1: expected 1");
  refused({Doubles({1, 2}).to(at::kFloat), Doubles({1})}, "of Float");
  refused({Doubles({1, 2}), at::Tensor()}, "gradient of shard 1: expected one for all shards");
  Step(optimizer, {Doubles({1, 2}), Doubles({3})});
  EXPECT_THAT(Value(optimizer, 1), ElementsAre(0));
}

TEST(LocalOptimizerTest, StepsComeOneAfterTheOther) {
  LocalOptimizer optimizer = MakeOne(SGDOptions(1), {10});
  EXPECT_THAT(optimizer.FinishStep(), StatusIs(absl::StatusCode::kFailedPrecondition));
  ASSERT_OK(optimizer.BeginStep({Doubles({1})}, std::nullopt));
  EXPECT_THAT(optimizer.BeginStep({Doubles({1})}, std::nullopt),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST(LocalOptimizerTest, RefusesBadDefinitions) {
  ASSERT_OK_AND_ASSIGN(const OptionMap options, CompleteOptions("SGD", {}));
  const auto refused = [&](const char* kind, std::vector<ParamGroup> groups, ShardValue shard,
                           const char* text) {
    EXPECT_THAT(LocalOptimizer::Create(kind, std::move(groups), {"w"}, {std::move(shard)}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text)));
  };
  const ShardValue good = {0, Doubles({1})};
  refused("Lion", {{options, {"w"}}}, good, "unknown optimizer \"Lion\"");
  refused("SGD", {}, good, "optimizer got an empty parameter list");
  refused("SGD", {{{}, {"w"}}}, good, "required optimization parameter lr");
  refused("SGD", {{options, {"v"}}}, good, "parameter \"w\": expected it once");
  refused("SGD", {{options, {"w", "v"}}}, good, "parameter \"v\": in a parameter group");
  refused("SGD", {{options, {"w"}}}, {1, Doubles({1})}, "shard 0: expected one of 1 parameters");
  refused("SGD", {{options, {"w"}}}, {0, Doubles({1}).to(at::kHalf)}, "got Half");
  refused("SGD", {{options, {"w"}}}, {0, at::Tensor()}, "got none");
  refused("SGD", {{options, {"w"}}}, {0, at::zeros({2, 2}).select(1, 0)}, "not contiguous");
}

}  // namespace
}  // namespace shardstep
