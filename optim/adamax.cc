#include "shardstep/optim/adamax.h"

#include <ATen/ops/abs.h>
#include <ATen/ops/addcdiv.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/mul.h>

#include <cmath>

#include "shardstep/optim/adaptive_arrays.h"
#include "shardstep/optim/kernels/dispatch.h"
#include "shardstep/optim/kernels/factors.h"
#include "shardstep/optim/scalars.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {
namespace {

// Counts a step and returns its learning rate.
double NextRate(const OptionMap& options, double& step_count) {
  const double step = NextStep(step_count);
  return options.Number("lr") / (1 - std::pow(NumberPair(options, "betas").first, step));
}

template <typename T>
BlockUpdate VectorizedUpdate(const OptionMap& options, absl::Span<double> scalars) {
  const AdaptiveKernels<T>* kernels = FindAdaptiveKernels<T>();
  if (kernels == nullptr) return nullptr;
  const auto [beta1, beta2] = NumberPair(options, "betas");
  const LerpWeight<T> weight(1 - beta1);
  AdamaxFactors<T> factors;
  factors.gradient =
      CoupledGradientFactors<T>(options.IsTrue("maximize"), options.Number("weight_decay"));
  factors.from_gradient = weight.from_gradient;
  factors.exp_avg_weight = weight.factor;
  factors.beta2 = static_cast<T>(beta2);
  factors.eps = static_cast<T>(options.Number("eps"));
  factors.minus_rate = static_cast<T>(-NextRate(options, scalars[0]));
  return [kernels, factors](Block& block) {
    AdamaxFactors<T> scaled = factors;
    scaled.gradient = Scaled(factors.gradient, block.coefficient);
    kernels->adamax(scaled, ArraysOf<T>(block), block.gradient.numel());
  };
}

}  // namespace

std::vector<StateSpec> AdamaxOptimizer::States(const OptionMap& /*options*/) const {
  return AllStates();
}

std::vector<StateSpec> AdamaxOptimizer::AllStates() const {
  return {StateSpec::Scalar("step"), StateSpec::Tensor("exp_avg"), StateSpec::Tensor("exp_inf")};
}

BlockUpdate AdamaxOptimizer::Begin(const OptionMap& options, at::ScalarType dtype,
                                   absl::Span<double> scalars) const {
  const auto [beta1, beta2_value] = NumberPair(options, "betas");
  const CoupledGradient gradient_of(options.IsTrue("maximize"), options.Number("weight_decay"),
                                    dtype);
  const at::Scalar one_minus_beta1 = RoundedScalar(1 - beta1, dtype);
  const at::Tensor beta2 = ScalarTensor(beta2_value, dtype);
  const at::Scalar eps = RoundedScalar(options.Number("eps"), dtype);
  const at::Scalar minus_rate = RoundedScalar(-NextRate(options, scalars[0]), dtype);
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

BlockUpdate AdamaxOptimizer::BeginVectorized(const OptionMap& options, at::ScalarType dtype,
                                             absl::Span<double> scalars) const {
  return dtype == at::kFloat ? VectorizedUpdate<float>(options, scalars)
                             : VectorizedUpdate<double>(options, scalars);
}

}  // namespace shardstep
