#include "shardstep/optim/adamax.h"

#include <ATen/ops/abs.h>
#include <ATen/ops/addcdiv.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/mul.h>

#include <cmath>

#include "shardstep/optim/scalars.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {

std::vector<StateSpec> AdamaxOptimizer::States(const OptionMap& /*options*/) const {
  return AllStates();
}

std::vector<StateSpec> AdamaxOptimizer::AllStates() const {
  return {StateSpec::Scalar("step"), StateSpec::Tensor("exp_avg"), StateSpec::Tensor("exp_inf")};
}

BlockUpdate AdamaxOptimizer::Begin(const OptionMap& options, at::ScalarType dtype,
                                   absl::Span<double> scalars) const {
  const double step = NextStep(scalars[0]);
  const auto [beta1, beta2_value] = NumberPair(options, "betas");
  const CoupledGradient gradient_of(options.IsTrue("maximize"), options.Number("weight_decay"),
                                    dtype);
  const at::Scalar one_minus_beta1 = RoundedScalar(1 - beta1, dtype);
  const at::Tensor beta2 = ScalarTensor(beta2_value, dtype);
  const at::Scalar eps = RoundedScalar(options.Number("eps"), dtype);
  const double rate = options.Number("lr") / (1 - std::pow(beta1, step));
  const at::Scalar minus_rate = RoundedScalar(-rate, dtype);
  return [=](Block& block) {
    StateBlock& exp_avg = block.states[0];
    StateBlock& exp_inf = block.states[1];
    const at::Tensor gradient = gradient_of(block);
    at::lerp_out(exp_avg.out, exp_avg.in, gradient, one_minus_beta1);
    at::mul_out(exp_inf.out, exp_inf.in, beta2);
    at::maximum_out(exp_inf.out, exp_inf.out, at::abs(gradient).add_(eps));
    at::addcdiv_out(block.value_out, block.value_in, exp_avg.out, exp_inf.out, minus_rate);
  };
}

}  // namespace shardstep
