// Steps whose gradient is still a sum of what was pushed: the same bits as with its tensor.

#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "shardstep/optim/blocks.h"
#include "shardstep/optim/gradient_sum.h"
#include "shardstep/optim/local_optimizer.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

// Two blocks of work, the first of them of two parts and a bit.
constexpr int64_t kUnit = 2 * kPartElements + 5;
constexpr int64_t kElements = kUnit + 77;

at::Tensor Waves(int64_t elements, double phase, at::ScalarType dtype) {
  at::Tensor tensor = at::empty({elements}, at::TensorOptions().dtype(at::kDouble));
  auto* const data = tensor.mutable_data_ptr<double>();
  for (int64_t i = 0; i < elements; ++i) {
    data[i] = std::sin(phase + 0.7 * static_cast<double>(i % 1013));
  }
  return tensor.to(dtype);
}

std::shared_ptr<const GradientSum> SumAt(int step, at::ScalarType dtype) {
  absl::StatusOr<GradientSum> sum = GradientSum::Create(
      {{Waves(kElements, step, dtype), 0.3}, {Waves(kElements, step + 1, dtype)}, {at::Tensor()}},
      dtype, kElements, {/*divisor=*/3, /*grad_scale=*/7});
  EXPECT_OK(sum);
  return std::make_shared<const GradientSum>(*std::move(sum));
}

at::Tensor TensorOf(const GradientSum& sum) {
  at::Tensor tensor = at::empty({sum.elements()}, at::TensorOptions().dtype(sum.dtype()));
  sum.Write({0, sum.elements()}, tensor);
  return tensor;
}

LocalOptimizer Make(const std::string& kind, const OptionMap& given, at::ScalarType dtype) {
  absl::StatusOr<OptionMap> options = CompleteOptions(kind, given);
  EXPECT_OK(options);
  std::vector<ShardValue> shards;
  at::Tensor value = Waves(kElements, 5, dtype);
  if (!CheckSizes(kind, "w", {kElements}).ok()) value = value.view({1, kElements});
  shards.push_back({0, std::move(value)});
  absl::StatusOr<LocalOptimizer> made =
      LocalOptimizer::Create(kind, {{*options, {"w"}}}, {"w"}, std::move(shards), kUnit);
  EXPECT_OK(made);
  return *std::move(made);
}

void Step(LocalOptimizer& optimizer, ShardGradient gradient) {
  ASSERT_OK(optimizer.BeginStep({std::move(gradient)}, /*coefficient=*/0.75));
  for (size_t i = 0; i < optimizer.num_blocks(); ++i) optimizer.RunBlock(i);
  ASSERT_OK(optimizer.FinishStep());
}

void ExpectSameBits(const at::Tensor& a, const at::Tensor& b, const std::string& what) {
  ASSERT_EQ(a.nbytes(), b.nbytes());
  EXPECT_EQ(std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()), 0) << what;
}

void ExpectSameSteps(const std::string& kind, const OptionMap& options, at::ScalarType dtype) {
  LocalOptimizer summed = Make(kind, options, dtype);
  LocalOptimizer plain = Make(kind, options, dtype);
  ASSERT_TRUE(summed.TakesSums()) << kind;
  LocalState held;
  for (int step = 0; step < 3; ++step) {
    const std::shared_ptr<const GradientSum> sum = SumAt(step, dtype);
    // A snapshot in the middle: that step writes into fresh memory.
    if (step == 1) held = summed.state();
    ASSERT_NO_FATAL_FAILURE(Step(summed, sum));
    ASSERT_NO_FATAL_FAILURE(Step(plain, TensorOf(*sum)));
  }
  const LocalState::Shard& a = summed.state().shards[0];
  const LocalState::Shard& b = plain.state().shards[0];
  ExpectSameBits(a.value, b.value, kind);
  ASSERT_EQ(a.states.size(), b.states.size());
  for (size_t i = 0; i < a.states.size(); ++i) {
    ExpectSameBits(a.states[i].tensor, b.states[i].tensor, kind + a.states[i].name);
  }
}

TEST(SummedStepsTest, HaveTheBitsOfStepsByTensors) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    for (const std::string kind : {"SGD", "Adam", "AdamW", "Adagrad", "RMSprop", "Adadelta",
                                   "NAdam", "RAdam", "Adamax", "Rprop", "ASGD"}) {
      ExpectSameSteps(kind, {}, dtype);
    }
    ExpectSameSteps("SGD", {{"momentum", 0.9}}, dtype);
    ExpectSameSteps("RMSprop", {{"centered", true}}, dtype);
  }
}

TEST(SummedStepsTest, AreRefusedWhereTheyDoNotFit) {
  LocalOptimizer muon = Make("Muon", {}, at::kFloat);
  EXPECT_THAT(muon.BeginStep({SumAt(0, at::kFloat)}, std::nullopt),
              StatusIs(absl::StatusCode::kInvalidArgument, testing::HasSubstr("as Muon needs it")));
  LocalOptimizer sgd = Make("SGD", {}, at::kFloat);
  absl::StatusOr<GradientSum> shorter =
      GradientSum::Create({{Waves(3, 0, at::kFloat), 2}}, at::kFloat, 3, ReductionOptions());
  ASSERT_OK(shorter);
  EXPECT_THAT(
      sgd.BeginStep({std::make_shared<const GradientSum>(*std::move(shorter))}, std::nullopt),
      StatusIs(absl::StatusCode::kInvalidArgument, testing::HasSubstr("a sum of 3 elements")));
  Step(sgd, SumAt(0, at::kFloat));
}

}  // namespace
}  // namespace shardstep
