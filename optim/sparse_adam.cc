#include "shardstep/optim/sparse_adam.h"

#include <ATen/ops/add.h>
#include <ATen/ops/div.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/sub.h>

#include <cmath>

#include "shardstep/optim/scalars.h"
#include "shardstep/optim/square_root.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {
namespace {

// The moment moves towards `target` by the factor: old + factor * (target - old), in this order.
void MoveTowards(const at::Tensor& target, const at::Scalar& factor, StateBlock& moment) {
  const at::Tensor update = at::sub(target, moment.in).mul_(factor);
  at::add_out(moment.out, moment.in, update);
}

}  // namespace

std::vector<StateSpec> SparseAdamOptimizer::States(const OptionMap& /*options*/) const {
  return AllStates();
}

std::vector<StateSpec> SparseAdamOptimizer::AllStates() const {
  return {{"step", StateSpec::Kind::kScalar, DType::kInt64},
          StateSpec::Tensor("exp_avg"),
          StateSpec::Tensor("exp_avg_sq")};
}

BlockUpdate SparseAdamOptimizer::Begin(const OptionMap& options, at::ScalarType dtype,
                                       absl::Span<double> scalars) const {
  const double step = scalars[0] += 1;
  const auto [beta1, beta2] = NumberPair(options, "betas");
  const bool maximize = options.IsTrue("maximize");
  const at::Scalar one_minus_beta1 = RoundedScalar(1 - beta1, dtype);
  const at::Scalar one_minus_beta2 = RoundedScalar(1 - beta2, dtype);
  const at::Scalar eps = RoundedScalar(options.Number("eps"), dtype);
  const double bias_correction1 = 1 - std::pow(beta1, step);
  const double bias_correction2 = 1 - std::pow(beta2, step);
  const double step_size = options.Number("lr") * std::sqrt(bias_correction2) / bias_correction1;
  const at::Tensor minus_step_size = ScalarTensor(-step_size, dtype);
  return [=](Block& block) {
    StateBlock& exp_avg = block.states[0];
    StateBlock& exp_avg_sq = block.states[1];
    const at::Tensor gradient = maximize ? at::neg(block.gradient) : block.gradient;
    MoveTowards(gradient, one_minus_beta1, exp_avg);
    MoveTowards(at::mul(gradient, gradient), one_minus_beta2, exp_avg_sq);
    const at::Tensor denominator = Sqrt(exp_avg_sq.out).add_(eps);
    const at::Tensor change = at::div(exp_avg.out, denominator).mul_(minus_step_size);
    at::add_out(block.value_out, block.value_in, change);
  };
}

}  // namespace shardstep
