#include "shardstep/optim/adam.h"

#include <ATen/ops/addcdiv.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/sqrt.h>

#include <cmath>

#include "shardstep/optim/scalars.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {

std::vector<StateSpec> AdamOptimizer::States(const OptionMap& options) const {
  std::vector<StateSpec> states = AllStates();
  if (!options.IsTrue("amsgrad")) states.pop_back();
  return states;
}

std::vector<StateSpec> AdamOptimizer::AllStates() const {
  return {StateSpec::Scalar("step"), StateSpec::Tensor("exp_avg"), StateSpec::Tensor("exp_avg_sq"),
          StateSpec::Tensor("max_exp_avg_sq")};
}

BlockUpdate AdamOptimizer::Begin(const OptionMap& options, at::ScalarType dtype,
                                 absl::Span<double> scalars) const {
  const double step = NextStep(scalars[0]);
  const auto [beta1, beta2] = NumberPair(options, "betas");
  const double lr = options.Number("lr");
  const double weight_decay = options.Number("weight_decay");
  const bool decoupled = options.IsTrue("decoupled_weight_decay");
  const bool amsgrad = options.IsTrue("amsgrad");
  const CoupledGradient gradient_of(options.IsTrue("maximize"), decoupled ? 0 : weight_decay,
                                    dtype);
  const DecoupledDecay decayed(lr, decoupled ? weight_decay : 0, dtype);
  const AdamMoments moments(beta1, beta2, dtype);
  const double bias_correction2 = 1 - std::pow(beta2, step);
  const at::Scalar bias_correction2_sqrt = RoundedScalar(PowHalf(bias_correction2), dtype);
  const at::Scalar eps = RoundedScalar(options.Number("eps"), dtype);
  const double step_size = lr / (1 - std::pow(beta1, step));
  const at::Scalar minus_step_size = RoundedScalar(-step_size, dtype);
  return [=](Block& block) {
    StateBlock& exp_avg = block.states[0];
    StateBlock& exp_avg_sq = block.states[1];
    const at::Tensor gradient = gradient_of(block);
    const at::Tensor value = decayed(block);
    moments(gradient, exp_avg, exp_avg_sq);
    if (amsgrad) at::maximum_out(block.states[2].out, block.states[2].in, exp_avg_sq.out);
    const at::Tensor denominator = at::sqrt(amsgrad ? block.states[2].out : exp_avg_sq.out);
    denominator.div_(bias_correction2_sqrt).add_(eps);
    at::addcdiv_out(block.value_out, value, exp_avg.out, denominator, minus_step_size);
  };
}

}  // namespace shardstep
