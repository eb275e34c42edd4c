#include "shardstep/optim/adam.h"

#include <ATen/ops/addcdiv.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "shardstep/optim/options/option_checks.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

constexpr int64_t kElements = 64;
constexpr double kBeta1 = 0.5, kBeta2 = 0.69, kLr = 0.001, kEps = 1e-8;
// pow(1 - kBeta2^100, 0.5) and the square root differ in the last bit.
constexpr double kStep = 100;

// torch.optim forms the bias correction with Python's **0.5, which is C's pow.
TEST(AdamTest, BiasCorrectionIsNotTheSquareRoot) {
  ASSERT_OK_AND_ASSIGN(const OptionMap options,
                       CompleteOptions("Adam", {{"betas", OptionValue::List{kBeta1, kBeta2}}}));
  const at::TensorOptions dtype = at::TensorOptions().dtype(at::kDouble);
  const auto fresh = [&] { return at::empty({kElements}, dtype); };
  Block block;
  block.gradient = at::arange(1, kElements + 1, dtype);
  block.value_in = at::zeros({kElements}, dtype);
  block.value_out = fresh();
  const auto zeros = [&] { return at::zeros({kElements}, dtype); };
  block.states = {{zeros(), fresh()}, {zeros(), fresh()}};
  double step = kStep - 1;
  AdamOptimizer().Begin(options, at::kDouble, absl::MakeSpan(&step, 1))(block);
  EXPECT_EQ(step, kStep);

  const auto expected = [&](double correction2_sqrt) {
    at::Tensor denominator = at::sqrt(block.states[1].out);
    denominator.div_(correction2_sqrt).add_(kEps);
    const double step_size = kLr / (1 - std::pow(kBeta1, kStep));
    return at::addcdiv(block.value_in, block.states[0].out, denominator, -step_size);
  };
  const double correction2 = 1 - std::pow(kBeta2, kStep);
  volatile double half = 0.5;
  EXPECT_TRUE(block.value_out.equal(expected(std::pow(correction2, half))));
  EXPECT_FALSE(block.value_out.equal(expected(std::sqrt(correction2))));
}

}  // namespace
}  // namespace shardstep
