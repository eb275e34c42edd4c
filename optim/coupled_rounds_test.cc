// The rounds of sums of a LocalOptimizer whose optimizer's elements depend on each other.

#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

at::Tensor Doubles(const std::vector<double>& values) {
  return at::tensor(values, at::TensorOptions().dtype(at::kDouble));
}

std::vector<double> Values(const at::Tensor& tensor) {
  const auto* data = tensor.const_data_ptr<double>();
  return std::vector<double>(data, data + tensor.numel());
}

absl::StatusOr<LocalOptimizer> Make(const OptimizerOptions& options,
                                    std::vector<ShardValue> shards) {
  absl::StatusOr<OptionMap> full = CompleteOptions(options.kind, options.given);
  EXPECT_OK(full);
  return LocalOptimizer::Create(options.kind, {{*full, {"w"}}}, {"w"}, std::move(shards));
}

// The left two columns of a matrix of two rows and three columns.
ShardValue Left() { return {0, Doubles({1, 2, 4, 5}).view({2, 2}), {{0, 0}, {2, 2}}, {2, 3}}; }
// The right one.
ShardValue Right() { return {0, Doubles({3, 6}).view({2, 1}), {{0, 2}, {2, 1}}, {2, 3}}; }

LocalOptimizer MakeLeft(const OptimizerOptions& options) {
  absl::StatusOr<LocalOptimizer> made = Make(options, {Left()});
  EXPECT_OK(made);
  return *std::move(made);
}

void RunBlocks(LocalOptimizer& optimizer) {
  for (size_t i = 0; i < optimizer.num_blocks(); ++i) optimizer.RunBlock(i);
}

absl::StatusOr<std::vector<ShardSums>> BeginAndSum(LocalOptimizer& optimizer,
                                                   const at::Tensor& gradient) {
  EXPECT_OK(optimizer.BeginStep({gradient}, std::nullopt));
  RunBlocks(optimizer);
  return optimizer.FinishRound();
}

LarsOptions Lars() { return LarsOptions(1).weight_decay(1).trust_coefficient(1).eps(0); }

TEST(CoupledRoundsTest, PartsAreThoseOfSumsWithTermsElsewhere) {
  LocalOptimizer optimizer = MakeLeft(AdafactorOptions());
  EXPECT_EQ(optimizer.reduce_rounds(), 3);
  ASSERT_OK_AND_ASSIGN(const std::vector<ShardSums> parts,
                       BeginAndSum(optimizer, Doubles({1, 2, 3, 4})));
  // Columns are whole here.
  ASSERT_EQ(parts.size(), 2);
  EXPECT_EQ(parts[0].sum, 0);
  EXPECT_EQ(parts[0].extent, Extent::kTensor);
  EXPECT_THAT(parts[0].values, ElementsAre(CompensatedSum{1 + 4 + 16 + 25, 0}));
  EXPECT_EQ(parts[1].sum, 1);
  EXPECT_EQ(parts[1].extent, Extent::kRow);
  EXPECT_THAT(parts[1].values, ElementsAre(CompensatedSum{5, 0}, CompensatedSum{25, 0}));
}

TEST(CoupledRoundsTest, AWholeParameterNeedsNobody) {
  for (const OptimizerOptions& options :
       {OptimizerOptions(AdafactorOptions()), OptimizerOptions(LambOptions()),
        OptimizerOptions(Lars())}) {
    ASSERT_OK_AND_ASSIGN(LocalOptimizer optimizer,
                         Make(options, {{0, Doubles({1, 2, 3, 4}).view({2, 2})}}));
    ASSERT_OK(optimizer.BeginStep({Doubles({1, 1, 1, 1})}, std::nullopt));
    for (int round = 0; round < optimizer.reduce_rounds(); ++round) {
      RunBlocks(optimizer);
      ASSERT_OK_AND_ASSIGN(const std::vector<ShardSums> parts, optimizer.FinishRound());
      EXPECT_THAT(parts, IsEmpty()) << options.kind;
      ASSERT_OK(optimizer.BeginRound({}));
    }
    RunBlocks(optimizer);
    EXPECT_OK(optimizer.FinishStep());
    EXPECT_NE(Values(optimizer.state().shards[0].value)[0], 1) << options.kind;
  }
}

TEST(CoupledRoundsTest, AShardWithoutElementsOrGradientHasNoPart) {
  std::vector<ShardValue> shards = {Left()};
  shards.push_back({0, Doubles({}).view({2, 0}), {{0, 3}, {2, 0}}, {2, 3}});
  ASSERT_OK_AND_ASSIGN(LocalOptimizer optimizer, Make(Lars(), std::move(shards)));
  ASSERT_OK(optimizer.BeginStep({Doubles({1, 1, 1, 1}), Doubles({})}, std::nullopt));
  RunBlocks(optimizer);
  ASSERT_OK_AND_ASSIGN(const std::vector<ShardSums> parts, optimizer.FinishRound());
  EXPECT_EQ(parts.size(), 2);
  optimizer.AbandonStep();
  ASSERT_OK(optimizer.BeginStep({at::Tensor(), at::Tensor()}, std::nullopt));
  ASSERT_OK_AND_ASSIGN(const std::vector<ShardSums> none, optimizer.FinishRound());
  EXPECT_THAT(none, IsEmpty());
}

TEST(CoupledRoundsTest, TheTotalsCount) {
  LocalOptimizer optimizer = MakeLeft(Lars());
  ASSERT_OK_AND_ASSIGN(std::vector<ShardSums> sums, BeginAndSum(optimizer, Doubles({1, 1, 1, 1})));
  sums[0].values = {{16, 0}};  // of the parameter
  sums[1].values = {{4, 0}};   // of the gradient
  ASSERT_OK(optimizer.BeginRound(sums));
  RunBlocks(optimizer);
  ASSERT_OK(optimizer.FinishStep());
  const double ratio = 4.0 / (2 + 4);
  EXPECT_THAT(Values(optimizer.state().shards[0].value),
              ElementsAre(1 - ratio * 2, 2 - ratio * 3, 4 - ratio * 5, 5 - ratio * 6));
}

TEST(CoupledRoundsTest, TheCoefficientCountsInSums) {
  LocalOptimizer optimizer = MakeLeft(Lars());
  ASSERT_OK(optimizer.BeginStep({Doubles({2, 2, 2, 2})}, 0.5));
  RunBlocks(optimizer);
  ASSERT_OK_AND_ASSIGN(const std::vector<ShardSums> sums, optimizer.FinishRound());
  EXPECT_THAT(sums[1].values, ElementsAre(CompensatedSum{4, 0}));
}

TEST(CoupledRoundsTest, RefusesTotalsThatDoNotFitAndGoesOn) {
  LocalOptimizer optimizer = MakeLeft(Lars());
  ASSERT_OK_AND_ASSIGN(const std::vector<ShardSums> good,
                       BeginAndSum(optimizer, Doubles({1, 1, 1, 1})));
  const auto refused = [&](const std::vector<ShardSums>& totals, const char* text) {
    EXPECT_THAT(optimizer.BeginRound(totals),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text)));
  };
  refused({}, "expected 1 values per tensor for sum 0 of shard 0");
  refused({good[0]}, "for sum 1 of shard 0");
  refused({good[1], good[0]}, "for sum 0");
  refused({good[0], good[1], good[1]}, "1 more than");
  std::vector<ShardSums> bad = good;
  bad[1].values.emplace_back();
  refused(bad, "for sum 1");
  bad = good;
  bad[0].extent = Extent::kRow;
  refused(bad, "for sum 0");
  bad = good;
  bad[0].shard = 1;
  refused(bad, "of shard 0");
  EXPECT_OK(optimizer.BeginRound(good));
}

TEST(CoupledRoundsTest, RoundsComeOneAfterTheOtherAndThenTheUpdate) {
  LocalOptimizer optimizer = MakeLeft(Lars());
  EXPECT_THAT(optimizer.FinishRound(), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(optimizer.BeginRound({}), StatusIs(absl::StatusCode::kFailedPrecondition));
  ASSERT_OK_AND_ASSIGN(const std::vector<ShardSums> sums,
                       BeginAndSum(optimizer, Doubles({1, 1, 1, 1})));
  EXPECT_THAT(optimizer.FinishRound(), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(optimizer.FinishStep(), StatusIs(absl::StatusCode::kFailedPrecondition));
  ASSERT_OK(optimizer.BeginRound(sums));
  EXPECT_THAT(optimizer.FinishRound(), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(optimizer.BeginRound(sums), StatusIs(absl::StatusCode::kFailedPrecondition));
}

// In every round the step can be dropped: the same step then gives the same as if nothing had been.
TEST(CoupledRoundsTest, AnAbandonedStepLeavesEverythingAsItWas) {
  for (const OptimizerOptions& options :
       {OptimizerOptions(AdafactorOptions(1)), OptimizerOptions(LambOptions(1)),
        OptimizerOptions(Lars().momentum(0.5))}) {
    const auto step = [&](LocalOptimizer& optimizer, double gradient, int rounds) {
      ASSERT_OK(optimizer.BeginStep({at::ones({4}, at::kDouble).mul_(gradient)}, std::nullopt));
      for (int round = 0; round < rounds; ++round) {
        RunBlocks(optimizer);
        ASSERT_OK_AND_ASSIGN(const std::vector<ShardSums> sums, optimizer.FinishRound());
        ASSERT_OK(optimizer.BeginRound(sums));
      }
    };
    LocalOptimizer disturbed = MakeLeft(options), undisturbed = MakeLeft(options);
    const int rounds = disturbed.reduce_rounds();
    for (int i = 1; i <= 3; ++i) {
      for (int reached = 0; reached <= rounds; ++reached) {
        step(disturbed, 100, reached);
        if (reached < rounds) RunBlocks(disturbed);
        disturbed.AbandonStep();
      }
      for (LocalOptimizer* optimizer : {&disturbed, &undisturbed}) {
        step(*optimizer, i, rounds);
        RunBlocks(*optimizer);
        ASSERT_OK(optimizer->FinishStep());
      }
      const LocalState &a = disturbed.state(), &b = undisturbed.state();
      EXPECT_EQ(Values(a.shards[0].value), Values(b.shards[0].value)) << options.kind;
      ASSERT_EQ(a.shards[0].states.size(), b.shards[0].states.size());
      for (size_t j = 0; j < b.shards[0].states.size(); ++j) {
        EXPECT_EQ(Values(a.shards[0].states[j].tensor), Values(b.shards[0].states[j].tensor))
            << options.kind << " " << b.shards[0].states[j].name;
      }
      if (!b.scalars[0].empty()) {
        EXPECT_EQ(a.scalars[0][0].value, i) << options.kind;
      }
    }
  }
}

TEST(CoupledRoundsTest, StatesKeptPerRowHaveTheShardsPartOfTheirShape) {
  LocalOptimizer optimizer = MakeLeft(AdafactorOptions());
  const auto state = [](const char* name, const at::Tensor& tensor) {
    return std::vector<std::vector<TensorState>>{{{name, tensor}}};
  };
  EXPECT_OK(optimizer.SetState(state("row_var", Doubles({1, 2})), {{}}));
  EXPECT_EQ(optimizer.state().shards[0].states[0].tensor.sizes(), (at::IntArrayRef{2, 1}));
  EXPECT_OK(optimizer.SetState(state("col_var", Doubles({1, 2})), {{}}));
  EXPECT_EQ(optimizer.state().shards[0].states[0].tensor.sizes(), (at::IntArrayRef{1, 2}));
  EXPECT_THAT(optimizer.SetState(state("row_var", Doubles({1, 2, 3, 4})), {{}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("with 2 contiguous")));
  EXPECT_THAT(optimizer.SetState(state("variance", Doubles({1, 2})), {{}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("with 4 contiguous")));
}

TEST(CoupledRoundsTest, RefusesPlacesThatDoNotFitAndCutsThatAreNotAllowed) {
  const auto refused = [](const OptimizerOptions& options, ShardValue shard, const char* text) {
    EXPECT_THAT(Make(options, {std::move(shard)}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text)));
  };
  ShardValue beyond = Left();
  beyond.region.offsets = {0, 2};
  refused(Lars(), beyond, "4 elements at [0,2] of sizes [2,2] do not fit into parameter \"w\"");
  ShardValue other = Left();
  other.region.sizes = {2, 3};
  refused(Lars(), other, "do not fit");
  ShardValue flat = Left();
  flat.sizes = {6};
  refused(Lars(), flat, "do not fit");
  refused(MuonOptions(), Left(), "shard 0: cuts dimension 1 of parameter \"w\", which Muon needs");
  refused(RowWiseAdagradOptions(), Right(), "cuts dimension 1");
  refused(MuonOptions(), {0, Doubles({1, 2})}, "Muon only supports 2D parameters");
  const ShardValue rows = {0, Doubles({1, 2, 3}).view({1, 3}), {{1, 0}, {1, 3}}, {2, 3}};
  refused(MuonOptions(), rows, "cuts dimension 0");
  EXPECT_OK(Make(RowWiseAdagradOptions(), {rows}));
}

}  // namespace
}  // namespace shardstep
