#include "shardstep/optim/radam.h"

#include <ATen/ops/add.h>
#include <ATen/ops/div.h>
#include <ATen/ops/sqrt.h>

#include <cmath>

#include "shardstep/optim/scalars.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {

std::vector<StateSpec> RAdamOptimizer::States(const OptionMap& /*options*/) const {
  return AllStates();
}

std::vector<StateSpec> RAdamOptimizer::AllStates() const {
  return {StateSpec::Scalar("step"), StateSpec::Tensor("exp_avg"), StateSpec::Tensor("exp_avg_sq")};
}

BlockUpdate RAdamOptimizer::Begin(const OptionMap& options, at::ScalarType dtype,
                                  absl::Span<double> scalars) const {
  const double step = NextStep(scalars[0]);
  const auto [beta1, beta2] = NumberPair(options, "betas");
  const double lr = options.Number("lr");
  const double weight_decay = options.Number("weight_decay");
  const bool decoupled = options.IsTrue("decoupled_weight_decay");
  const CoupledGradient gradient_of(options.IsTrue("maximize"), decoupled ? 0 : weight_decay,
                                    dtype);
  const DecoupledDecay decayed(lr, decoupled ? weight_decay : 0, dtype);
  const AdamMoments moments(beta1, beta2, dtype);
  const at::Scalar bias_correction1 = RoundedScalar(1 - std::pow(beta1, step), dtype);
  const double bias_correction2 = 1 - std::pow(beta2, step);
  const double rho_inf = 2 / (1 - beta2) - 1;
  const double rho = rho_inf - 2 * step * std::pow(beta2, step) / bias_correction2;
  const bool rectified = rho > 5;
  const double rectification =
      PowHalf((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho));
  const at::Scalar rectify = RoundedScalar(rectification, dtype);
  const at::Scalar correct2 = RoundedScalar(PowHalf(bias_correction2), dtype);
  const at::Scalar eps = RoundedScalar(options.Number("eps"), dtype);
  const at::Scalar rate = RoundedScalar(lr, dtype);
  return [=](Block& block) {
    StateBlock& exp_avg = block.states[0];
    StateBlock& exp_avg_sq = block.states[1];
    const at::Tensor gradient = gradient_of(block);
    const at::Tensor value = decayed(block);
    moments(gradient, exp_avg, exp_avg_sq);
    const at::Tensor update = at::div(exp_avg.out, bias_correction1).mul_(rate);
    if (rectified) {
      // Python's number / tensor is tensor.reciprocal() * number.
      update.mul_(at::sqrt(exp_avg_sq.out).add_(eps).reciprocal_().mul_(correct2)).mul_(rectify);
    }
    at::add_out(block.value_out, value, update, -1);
  };
}

}  // namespace shardstep
