// What the golden files do not show of the optimizers whose elements depend on each other: each
// trap by name.

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "shardstep/optim/local_optimizer.h"
#include "shardstep/optim/options/optimizer_options.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pointwise;

at::Tensor Tensor(const std::vector<double>& values, const std::vector<int64_t>& sizes,
                  at::ScalarType dtype = at::kDouble) {
  return at::tensor(values, at::TensorOptions().dtype(dtype)).view(sizes);
}

std::vector<double> Values(const at::Tensor& tensor) {
  const at::Tensor doubles = tensor.to(at::kDouble);
  const auto* data = doubles.const_data_ptr<double>();
  return std::vector<double>(data, data + doubles.numel());
}

// Whole parameters of one group.
LocalOptimizer Make(const OptimizerOptions& options, const std::vector<at::Tensor>& values) {
  absl::StatusOr<OptionMap> full = CompleteOptions(options.kind, options.given);
  EXPECT_OK(full);
  std::vector<std::string> names;
  std::vector<ShardValue> shards;
  for (const at::Tensor& value : values) {
    names.push_back(std::to_string(names.size()));
    shards.push_back({shards.size(), value.clone()});
  }
  absl::StatusOr<LocalOptimizer> made =
      LocalOptimizer::Create(options.kind, {{*full, names}}, names, std::move(shards));
  EXPECT_OK(made);
  return *std::move(made);
}

void Step(LocalOptimizer& optimizer, std::vector<ShardGradient> gradients,
          const StepFacts& facts = {}) {
  ASSERT_OK(optimizer.BeginStep(std::move(gradients), std::nullopt, {}, facts));
  for (int round = 0; round < optimizer.reduce_rounds(); ++round) {
    for (size_t i = 0; i < optimizer.num_blocks(); ++i) optimizer.RunBlock(i);
    ASSERT_OK(optimizer.FinishRound());
    ASSERT_OK(optimizer.BeginRound({}));
  }
  for (size_t i = 0; i < optimizer.num_blocks(); ++i) optimizer.RunBlock(i);
  ASSERT_OK(optimizer.FinishStep());
}

const at::Tensor& Value(const LocalOptimizer& optimizer, size_t shard = 0) {
  return optimizer.state().shards[shard].value;
}

at::Tensor State(const LocalOptimizer& optimizer, absl::string_view name, size_t shard = 0) {
  for (const TensorState& state : optimizer.state().shards[shard].states) {
    if (state.name == name) return state.tensor;
  }
  ADD_FAILURE() << "no state " << name;
  return at::zeros({1}, at::kDouble);
}

TEST(AdafactorTest, NoGradientIsNotAZeroGradient) {
  const at::Tensor ones = Tensor({1, 1}, {1, 2});
  LocalOptimizer optimizer = Make(AdafactorOptions(0.5).weight_decay(0.5), {ones, ones});
  Step(optimizer, {at::Tensor(), Tensor({0, 0}, {1, 2})});
  EXPECT_THAT(Values(Value(optimizer, 0)), ElementsAre(1, 1));
  EXPECT_THAT(optimizer.state().shards[0].states, IsEmpty());
  EXPECT_THAT(optimizer.state().scalars[0], IsEmpty());
  EXPECT_THAT(Values(Value(optimizer, 1)), ElementsAre(0.75, 0.75));
  EXPECT_EQ(optimizer.state().scalars[1][0].value, 1);
}

TEST(AdafactorTest, StepIsFloat32AndStopsAt2To24) {
  LocalOptimizer optimizer = Make(AdafactorOptions(), {Tensor({1}, {1})});
  ASSERT_OK(optimizer.SetState({{{"variance", Tensor({1}, {1})}}},
                               {{{"step", 16777216, DType::kFloat32}}}));
  Step(optimizer, {Tensor({1}, {1})});
  EXPECT_EQ(optimizer.state().scalars[0][0].value, 16777216);
  EXPECT_EQ(optimizer.state().scalars[0][0].dtype, DType::kFloat32);
}

TEST(AdafactorTest, OnlyWhatHasRowsIsFactored) {
  LocalOptimizer optimizer =
      Make(AdafactorOptions(), {Tensor({1}, {}), Tensor({1, 2, 3, 4, 5, 6}, {1, 3, 2})});
  Step(optimizer, {Tensor({2}, {}), Tensor({1, 2, 3, 4, 5, 6}, {1, 3, 2})});
  EXPECT_EQ(optimizer.state().shards[0].states.size(), 1);
  EXPECT_EQ(State(optimizer, "variance", 0).dim(), 0);
  EXPECT_THAT(Values(State(optimizer, "variance", 0)), ElementsAre(4));
  EXPECT_EQ(State(optimizer, "row_var", 1).sizes(), (at::IntArrayRef{1, 3, 1}));
  EXPECT_EQ(State(optimizer, "col_var", 1).sizes(), (at::IntArrayRef{1, 1, 2}));
  // Step 1 takes the means as they are.
  EXPECT_THAT(Values(State(optimizer, "row_var", 1)),
              Pointwise(DoubleNear(1e-14), {5 / 2.0, 25 / 2.0, 61 / 2.0}));
  EXPECT_THAT(Values(State(optimizer, "col_var", 1)),
              Pointwise(DoubleNear(1e-14), {35 / 3.0, 56 / 3.0}));
}

TEST(AdafactorTest, EpsOfNoneIsThatOfTheFirstParameterSteppedInTheGroup) {
  // So small that eps1 bounds the root of the second moment.
  const double gradient = 1e-10;
  const auto moved = [&](const std::vector<DType>& group_dtypes) {
    StepFacts facts;
    facts.group_dtypes = group_dtypes;
    LocalOptimizer optimizer = Make(AdafactorOptions(1), {Tensor({1}, {1})});
    Step(optimizer, {Tensor({gradient}, {1})}, facts);
    return 1 - Values(Value(optimizer))[0];
  };
  const double by_float32 = gradient / std::numeric_limits<float>::epsilon();
  EXPECT_NEAR(moved({DType::kFloat32}), by_float32, 1e-12);
  EXPECT_NEAR(moved({DType::kFloat64}), 1, 1e-12);
  EXPECT_NEAR(moved({DType::kInvalid}), 1, 1e-12);
  EXPECT_NEAR(moved({}), 1, 1e-12);
}

TEST(AdafactorTest, AParameterWithoutElementsIsCounted) {
  LocalOptimizer optimizer =
      Make(AdafactorOptions(), {at::zeros({0, 3}, at::kFloat), Tensor({1}, {1})});
  Step(optimizer, {at::zeros({0, 3}, at::kFloat), Tensor({1}, {1})});
  EXPECT_EQ(optimizer.state().scalars[0][0].value, 1);
  EXPECT_LT(Values(Value(optimizer, 1))[0], 1);
}

TEST(AdafactorTest, TheUpdateIsClippedToItsRootMeanSquare) {
  // Of four elements one moves: 4 / sqrt(1) at first, clipped to a root mean square of 1.
  LocalOptimizer optimizer = Make(AdafactorOptions(1).eps(1.0, 1.0), {Tensor({0, 0, 0, 0}, {4})});
  Step(optimizer, {Tensor({0.5, 0, 0, 0}, {4})});
  EXPECT_THAT(Values(Value(optimizer)),
              ElementsAre(-0.5, 0, 0, 0));  // bounded by eps1, not clipped
  Step(optimizer, {Tensor({0, 1e6, 1e6, 1e6}, {4})});
  double squares = 0;
  for (const double value : Values(Value(optimizer))) squares += value * value;
  // lr is bounded by 1 / sqrt(2) in step 2, and the parameter's own root mean square by eps2.
  EXPECT_NEAR(squares, 0.25 + 4.0 / 2, 1e-9);
}

TEST(MuonTest, TheBufferBeginsWithZeros) {
  LocalOptimizer optimizer = Make(MuonOptions().momentum(0.75), {Tensor({1, 2}, {1, 2})});
  Step(optimizer, {Tensor({4, 8}, {1, 2})});
  EXPECT_THAT(Values(State(optimizer, "momentum_buffer")), ElementsAre(1, 2));
  EXPECT_THAT(optimizer.state().scalars[0], IsEmpty());  // no step
}

TEST(MuonTest, DecaysWithLrAndMovesWithTheAdjustedOne) {
  const auto moved = [](const MuonOptions& options, const std::vector<int64_t>& sizes) {
    LocalOptimizer optimizer = Make(options, {Tensor({0, 0, 0, 0}, sizes)});
    Step(optimizer, {Tensor({1, 1, 1, 1}, sizes)});
    return Values(Value(optimizer))[0];
  };
  MuonOptions options = MuonOptions(1).weight_decay(0);
  const double wide = moved(options, {1, 4});
  EXPECT_NEAR(moved(options, {4, 1}), 2 * wide, 1e-6);  // sqrt(4 / 1)
  options.adjust_lr_fn("match_rms_adamw");
  EXPECT_NEAR(moved(options, {1, 4}), 0.4 * wide, 1e-6);  // 0.2 * sqrt(4)
  LocalOptimizer decayed = Make(MuonOptions(0.5).weight_decay(0.5), {Tensor({8, 8}, {1, 2})});
  Step(decayed, {Tensor({0, 0}, {1, 2})});
  EXPECT_THAT(Values(Value(decayed)), ElementsAre(6, 6));
}

TEST(LambTest, TheRatioIsOneWhereANormIsZeroOrNothingDecays) {
  const auto moved = [](const LambOptions& options, double value) {
    LocalOptimizer optimizer = Make(options, {Tensor({value}, {1})});
    Step(optimizer, {Tensor({2}, {1})});
    return value - Values(Value(optimizer))[0];
  };
  const LambOptions plain = LambOptions(0.5).eps(0).weight_decay(0);
  EXPECT_NEAR(moved(plain, 8), 0.5, 1e-12);
  EXPECT_NEAR(moved(LambOptions(plain).always_adapt(true), 8), 0.5 * 8, 1e-12);
  EXPECT_NEAR(moved(LambOptions(plain).always_adapt(true), 0), 0.5, 1e-12);
  EXPECT_NEAR(moved(LambOptions(plain).weight_decay(1), 8), 0.5 * 8 / 9 * 9, 1e-12);
}

TEST(LarsTest, FirstMomentumIsTheScaledGradientUndamped) {
  LocalOptimizer optimizer = Make(
      LarsOptions(1).momentum(0.5).dampening(0.75).trust_coefficient(0.5).eps(0).always_adapt(true),
      {Tensor({8}, {1})});
  Step(optimizer, {Tensor({2}, {1})});
  EXPECT_THAT(Values(State(optimizer, "momentum_buffer")), ElementsAre(0.5 * 8 / 2 * 2));
  EXPECT_THAT(Values(Value(optimizer)), ElementsAre(4));
  Step(optimizer, {Tensor({0}, {1})});  // ratio 1
  EXPECT_THAT(Values(State(optimizer, "momentum_buffer")), ElementsAre(2));
}

TEST(RowWiseAdagradTest, EveryRowHasOneAccumulatorFromTheStart) {
  LocalOptimizer optimizer = Make(RowWiseAdagradOptions(1).initial_accumulator_value(0.5).eps(0),
                                  {Tensor({0, 0, 0, 0}, {2, 2})});
  EXPECT_EQ(State(optimizer, "sum").sizes(), (at::IntArrayRef{2, 1}));
  EXPECT_THAT(Values(State(optimizer, "sum")), ElementsAre(0.5, 0.5));
  EXPECT_EQ(optimizer.state().scalars[0][0].value, 0);
  Step(optimizer, {Tensor({2, 4, 0, 0}, {2, 2})});
  EXPECT_THAT(Values(State(optimizer, "sum")), ElementsAre(10.5, 0.5));
  const double factor = 1 / std::sqrt(10.5);
  EXPECT_THAT(Values(Value(optimizer)), ElementsAre(-2 * factor, -4 * factor, 0, 0));
}

TEST(RowWiseAdagradTest, StepsInPlaceUnlessHeld) {
  LocalOptimizer optimizer = Make(RowWiseAdagradOptions(), {Tensor({1, 2}, {1, 2})});
  Step(optimizer, {Tensor({1, 1}, {1, 2})});
  const void* memory = State(optimizer, "sum").const_data_ptr();
  Step(optimizer, {Tensor({1, 1}, {1, 2})});
  EXPECT_EQ(State(optimizer, "sum").const_data_ptr(), memory);
  const LocalState snapshot = optimizer.state();
  Step(optimizer, {Tensor({1, 1}, {1, 2})});
  EXPECT_NE(State(optimizer, "sum").const_data_ptr(), memory);
  EXPECT_THAT(Values(snapshot.shards[0].states[0].tensor), ElementsAre(2));
}

}  // namespace
}  // namespace shardstep
