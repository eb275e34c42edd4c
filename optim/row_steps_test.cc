// Steps whose gradient consists of rows, against what PyTorch 2.11 does; numbers to the bit stand
// in tests/golden.

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "shardstep/optim/local_optimizer.h"
#include "shardstep/optim/options/optimizer_options.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using testing::ElementsAre;

at::Tensor Doubles(const std::vector<double>& values) {
  return at::tensor(values, at::TensorOptions().dtype(at::kDouble));
}

at::Tensor Numbers(const std::vector<int64_t>& rows) {
  return at::tensor(rows, at::TensorOptions().dtype(at::kLong));
}

std::vector<double> Values(const at::Tensor& tensor) {
  const double* const data = tensor.const_data_ptr<double>();
  return std::vector<double>(data, data + tensor.numel());
}

// One shard of four rows of two elements.
LocalOptimizer MakeTable(const OptimizerOptions& options, int64_t block_elements = kBlockElements) {
  const absl::StatusOr<OptionMap> full = CompleteOptions(options.kind, options.given);
  EXPECT_OK(full);
  std::vector<ShardValue> shards;
  shards.push_back({0, Doubles({1, 2, 3, 4, 5, 6, 7, 8}).view({4, 2})});
  absl::StatusOr<LocalOptimizer> made = LocalOptimizer::Create(
      options.kind, {{*full, {"w"}}}, {"w"}, std::move(shards), block_elements);
  EXPECT_OK(made);
  return *std::move(made);
}

absl::Status Begin(LocalOptimizer& optimizer, const std::vector<int64_t>& rows,
                   const std::vector<double>& elements,
                   std::optional<double> coefficient = std::nullopt) {
  const at::Tensor gradient =
      Doubles(elements).view({static_cast<int64_t>(rows.size()), int64_t{2}});
  return optimizer.BeginStep({gradient}, coefficient, {Numbers(rows)});
}

void Step(LocalOptimizer& optimizer, const std::vector<int64_t>& rows,
          const std::vector<double>& elements, std::optional<double> coefficient = std::nullopt) {
  ASSERT_OK(Begin(optimizer, rows, elements, coefficient));
  for (size_t i = optimizer.num_blocks(); i > 0; --i) optimizer.RunBlock(i - 1);
  ASSERT_OK(optimizer.FinishStep());
}

std::vector<double> Value(const LocalOptimizer& optimizer) {
  return Values(optimizer.state().shards[0].value);
}

std::vector<double> State(const LocalOptimizer& optimizer, size_t index) {
  return Values(optimizer.state().shards[0].states[index].tensor);
}

TEST(RowStepsTest, RowWiseAdagradMovesTheRowsThatCameAsAWholeGradientOfZerosElseWould) {
  const RowWiseAdagradOptions options =
      RowWiseAdagradOptions(0.1).lr_decay(0.5).initial_accumulator_value(0.25).eps(0.125);
  for (const bool held : {false, true}) {
    LocalOptimizer by_rows = MakeTable(options, /*block_elements=*/2);
    LocalOptimizer whole = MakeTable(options);
    for (int step = 0; step < 3; ++step) {
      const std::optional<LocalState> hold =
          held ? std::optional<LocalState>(by_rows.state()) : std::nullopt;
      const std::vector<double> before = Value(by_rows);
      Step(by_rows, {1, 3}, {4, -8, 0.5, 3}, 0.75);
      if (held) {
        EXPECT_EQ(Values(hold->shards[0].value), before);
      }
      ASSERT_OK(whole.BeginStep({Doubles({0, 0, 4, -8, 0, 0, 0.5, 3}).view({4, 2})}, 0.75));
      for (size_t i = 0; i < whole.num_blocks(); ++i) whole.RunBlock(i);
      ASSERT_OK(whole.FinishStep());
      EXPECT_EQ(Value(by_rows), Value(whole));
      EXPECT_EQ(State(by_rows, 0), State(whole, 0));
      EXPECT_EQ(State(by_rows, 0).size(), 4);
    }
  }
}

TEST(RowStepsTest, SparseAdamAddsEpsToTheUncorrectedRoot) {
  LocalOptimizer optimizer = MakeTable(SparseAdamOptions(0.1).betas(0.5, 0.75).eps(1));
  Step(optimizer, {1}, {4, -8});
  const double step_size = 0.1 * std::sqrt(0.25) / 0.5;
  const double moments[] = {2, -4}, squares[] = {4, 16};
  EXPECT_THAT(State(optimizer, 0), ElementsAre(0, 0, moments[0], moments[1], 0, 0, 0, 0));
  EXPECT_THAT(State(optimizer, 1), ElementsAre(0, 0, squares[0], squares[1], 0, 0, 0, 0));
  EXPECT_THAT(Value(optimizer), ElementsAre(1, 2, 3 + -step_size * (2.0 / 3),
                                            4 + -step_size * (-4.0 / 5), 5, 6, 7, 8));
}

TEST(RowStepsTest, SparseAdamsStepIsAnIntegerThatCountsEmptyGradientsToo) {
  LocalOptimizer optimizer = MakeTable(SparseAdamOptions());
  Step(optimizer, {}, {});
  ASSERT_EQ(optimizer.state().scalars[0].size(), 1);
  EXPECT_EQ(optimizer.state().scalars[0][0].value, 1);
  EXPECT_EQ(optimizer.state().scalars[0][0].dtype, DType::kInt64);
  EXPECT_THAT(State(optimizer, 0), testing::Each(0));
  EXPECT_THAT(Value(optimizer), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
  // Beyond what float32 counts to.
  ASSERT_OK(optimizer.SetState({{}}, {{{"step", 16777216, DType::kInt64}}}));
  Step(optimizer, {}, {});
  EXPECT_EQ(optimizer.state().scalars[0][0].value, 16777217);
}

TEST(RowStepsTest, RowsWithoutAGradientKeepValueAndMoments) {
  for (const OptimizerOptions& options :
       {OptimizerOptions(SparseAdamOptions(0.1)), OptimizerOptions(AdagradOptions(0.1)),
        OptimizerOptions(SGDOptions(0.1))}) {
    LocalOptimizer optimizer = MakeTable(options);
    Step(optimizer, {0, 2}, {1, 1, 1, 1});
    const LocalState before = optimizer.state();
    Step(optimizer, {3}, {1, 1});
    const LocalState& after = optimizer.state();
    for (int64_t row = 0; row < 3; ++row) {
      const auto same = [row](const at::Tensor& a, const at::Tensor& b) {
        return a.view({4, 2}).select(0, row).equal(b.view({4, 2}).select(0, row));
      };
      EXPECT_TRUE(same(before.shards[0].value, after.shards[0].value)) << options.kind << row;
      for (size_t i = 0; i < after.shards[0].states.size(); ++i) {
        EXPECT_TRUE(same(before.shards[0].states[i].tensor, after.shards[0].states[i].tensor));
      }
    }
    EXPECT_NE(Value(optimizer)[6], 7) << options.kind;
  }
}

// As PyTorch's sparse buffer: its rows go on without a gradient of their own.
TEST(RowStepsTest, MomentumMovesEveryRowThatEverHadAGradient) {
  LocalOptimizer optimizer = MakeTable(SGDOptions(1).momentum(0.5));
  Step(optimizer, {0}, {4, 8});
  Step(optimizer, {3}, {2, 2});
  EXPECT_THAT(State(optimizer, 0), ElementsAre(2, 4, 0, 0, 0, 0, 2, 2));
  EXPECT_THAT(Value(optimizer), ElementsAre(1 - 4 - 2, 2 - 8 - 4, 3, 4, 5, 6, 7 - 2, 8 - 2));
}

TEST(RowStepsTest, InPlaceWhereNobodyHoldsTheMemoryElseInACopy) {
  for (const int64_t block_elements : {kBlockElements, int64_t{4}, int64_t{1}}) {
    LocalOptimizer optimizer = MakeTable(SparseAdamOptions(0.1), block_elements);
    Step(optimizer, {1}, {1, 1});
    const void* const value = optimizer.state().shards[0].value.const_data_ptr();
    const void* const moment = optimizer.state().shards[0].states[0].tensor.const_data_ptr();
    Step(optimizer, {0, 1, 3}, {1, 1, 1, 1, 1, 1});
    EXPECT_EQ(optimizer.state().shards[0].value.const_data_ptr(), value);
    EXPECT_EQ(optimizer.state().shards[0].states[0].tensor.const_data_ptr(), moment);

    const LocalState held = optimizer.state();
    const std::vector<double> values = Values(held.shards[0].value);
    const std::vector<double> moments = Values(held.shards[0].states[0].tensor);
    Step(optimizer, {0, 3}, {1, 1, 1, 1});
    EXPECT_EQ(Values(held.shards[0].value), values);
    EXPECT_EQ(Values(held.shards[0].states[0].tensor), moments);
    EXPECT_NE(optimizer.state().shards[0].value.const_data_ptr(), value);
    // Rows 1 and 2 came along.
    const std::vector<double> now = Value(optimizer);
    EXPECT_NE(now[0], values[0]);
    EXPECT_EQ(std::vector<double>(now.begin() + 2, now.begin() + 6),
              std::vector<double>(values.begin() + 2, values.begin() + 6));
    EXPECT_EQ(State(optimizer, 0)[2], moments[2]);
  }
}

TEST(RowStepsTest, TheCoefficientMultipliesRows) {
  LocalOptimizer optimizer = MakeTable(SGDOptions(1));
  Step(optimizer, {2}, {4, 8}, 0.25);
  EXPECT_THAT(Value(optimizer), ElementsAre(1, 2, 3, 4, 4, 4, 7, 8));
}

TEST(RowStepsTest, OptimizersRefuseInPyTorchsWords) {
  const std::pair<OptimizerOptions, std::string> cases[] = {
      {AdamOptions(), "Adam does not support sparse gradients, please consider SparseAdam instead"},
      {AdamWOptions(),
       "Adam does not support sparse gradients, please consider SparseAdam instead"},
      {RMSpropOptions(), "RMSprop does not support sparse gradients"},
      {AdadeltaOptions(), "Adadelta does not support sparse gradients"},
      {NAdamOptions(), "NAdam does not support sparse gradients"},
      {RAdamOptions(), "RAdam does not support sparse gradients"},
      {AdamaxOptions(), "Adamax does not support sparse gradients"},
      {RpropOptions(), "Rprop does not support sparse gradients"},
      {ASGDOptions(), "ASGD does not support sparse gradients"},
      {AdagradOptions().weight_decay(0.1),
       "weight_decay option is not compatible with sparse gradients"},
      {SGDOptions().weight_decay(0.1),
       "weight_decay option is not compatible with sparse gradients"}};
  for (const auto& [options, message] : cases) {
    LocalOptimizer optimizer = MakeTable(options);
    EXPECT_THAT(Begin(optimizer, {1}, {1, 1}),
                StatusIs(absl::StatusCode::kInvalidArgument, message))
        << options.kind;
    EXPECT_THAT(Value(optimizer), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
  }
  LocalOptimizer sparse = MakeTable(SparseAdamOptions());
  EXPECT_THAT(
      sparse.BeginStep({at::zeros({8}, at::TensorOptions().dtype(at::kDouble))}, std::nullopt),
      StatusIs(absl::StatusCode::kInvalidArgument,
               "SparseAdam does not support dense gradients, please consider Adam instead"));
}

TEST(RowStepsTest, RefusesRowsThatDoNotFit) {
  LocalOptimizer optimizer = MakeTable(SparseAdamOptions());
  const auto refused = StatusIs(absl::StatusCode::kInvalidArgument, testing::HasSubstr("shard 0"));
  EXPECT_THAT(Begin(optimizer, {4}, {1, 1}), refused);
  EXPECT_THAT(Begin(optimizer, {-1}, {1, 1}), refused);
  EXPECT_THAT(Begin(optimizer, {2, 1}, {1, 1, 1, 1}), refused);
  EXPECT_THAT(Begin(optimizer, {1, 1}, {1, 1, 1, 1}), refused);
  const at::Tensor flat = Doubles({1, 1});
  EXPECT_THAT(optimizer.BeginStep({flat}, std::nullopt, {Numbers({0})}), refused);
  EXPECT_THAT(optimizer.BeginStep({flat.view({1, 2})}, std::nullopt, {Numbers({0, 1})}), refused);
  EXPECT_THAT(optimizer.BeginStep({flat.view({1, 2}).to(at::kFloat)}, std::nullopt, {Numbers({0})}),
              refused);
}

}  // namespace
}  // namespace shardstep
