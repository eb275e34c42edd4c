#include "shardstep/optim/nadam.h"

#include <ATen/ops/addcdiv.h>
#include <ATen/ops/div.h>

#include <cmath>

#include "shardstep/optim/scalars.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {

std::vector<StateSpec> NAdamOptimizer::States(const OptionMap& /*options*/) const {
  return AllStates();
}

std::vector<StateSpec> NAdamOptimizer::AllStates() const {
  return {StateSpec::Scalar("step"), StateSpec::Scalar("mu_product"), StateSpec::Tensor("exp_avg"),
          StateSpec::Tensor("exp_avg_sq")};
}

std::optional<double> NAdamOptimizer::InitialValue(absl::string_view state,
                                                   const OptionMap& /*options*/) const {
  return state == "mu_product" ? 1 : 0;
}

BlockUpdate NAdamOptimizer::Begin(const OptionMap& options, at::ScalarType dtype,
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
  const double momentum_decay = options.Number("momentum_decay");
  const double mu = beta1 * (1.0 - 0.5 * std::pow(0.96, step * momentum_decay));
  const double mu_next = beta1 * (1.0 - 0.5 * std::pow(0.96, (step + 1) * momentum_decay));
  scalars[1] = static_cast<float>(scalars[1]) * static_cast<float>(mu);
  const double mu_product = scalars[1];

  const at::Scalar bias_correction2 = RoundedScalar(1 - std::pow(beta2, step), dtype);
  const at::Scalar eps = RoundedScalar(options.Number("eps"), dtype);
  const at::Scalar of_gradient = RoundedScalar(-lr * (1.0 - mu) / (1.0 - mu_product), dtype);
  const at::Scalar of_average = RoundedScalar(-lr * mu_next / (1.0 - mu_product * mu_next), dtype);
  return [=](Block& block) {
    StateBlock& exp_avg = block.states[0];
    StateBlock& exp_avg_sq = block.states[1];
    const at::Tensor gradient = gradient_of(block);
    const at::Tensor value = decayed(block);
    moments(gradient, exp_avg, exp_avg_sq);
    const at::Tensor denominator = at::div(exp_avg_sq.out, bias_correction2).sqrt_().add_(eps);
    at::addcdiv_out(block.value_out, value, gradient, denominator, of_gradient);
    block.value_out.addcdiv_(exp_avg.out, denominator, of_average);
  };
}

}  // namespace shardstep
