#include "shardstep/optim/nadam.h"

#include <ATen/ops/addcdiv.h>
#include <ATen/ops/div.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "shardstep/optim/adaptive_arrays.h"
#include "shardstep/optim/kernels/dispatch.h"
#include "shardstep/optim/kernels/factors.h"
#include "shardstep/optim/kernels/roots.h"
#include "shardstep/optim/scalars.h"
#include "shardstep/optim/square_root.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {
namespace {

// One step's numbers, in double.
struct NadamStep {
  NadamStep(const OptionMap& options, absl::Span<double> scalars) : lr(options.Number("lr")) {
    const double step = NextStep(scalars[0]);
    std::tie(beta1, beta2) = NumberPair(options, "betas");
    const double weight_decay = options.Number("weight_decay");
    const bool decoupled = options.IsTrue("decoupled_weight_decay");
    coupled_decay = decoupled ? 0 : weight_decay;
    decoupled_decay = decoupled ? weight_decay : 0;
    const double momentum_decay = options.Number("momentum_decay");
    const double mu = beta1 * (1.0 - 0.5 * std::pow(0.96, step * momentum_decay));
    const double mu_next = beta1 * (1.0 - 0.5 * std::pow(0.96, (step + 1) * momentum_decay));
    scalars[1] = static_cast<float>(scalars[1]) * static_cast<float>(mu);
    const double mu_product = scalars[1];
    bias_correction2 = 1 - std::pow(beta2, step);
    of_gradient = -lr * (1.0 - mu) / (1.0 - mu_product);
    of_average = -lr * mu_next / (1.0 - mu_product * mu_next);
  }

  double lr;
  double beta1 = 0;
  double beta2 = 0;
  double coupled_decay = 0;
  double decoupled_decay = 0;
  double bias_correction2 = 0;
  double of_gradient = 0;
  double of_average = 0;
};

template <typename T>
BlockUpdate VectorizedUpdate(const OptionMap& options, absl::Span<double> scalars) {
  const Kernels<T>* moments = FindKernels<T>();
  const AdaptiveKernels<T>* kernels = FindAdaptiveKernels<T>();
  if (moments == nullptr || kernels == nullptr) return nullptr;
  const SqrtFunction<T> sqrt = FindSqrt<T>();
  const NadamStep step(options, scalars);
  NadamFactors<T> factors;
  factors.gradient = CoupledGradientFactors<T>(options.IsTrue("maximize"), step.coupled_decay);
  factors.decays_value = step.decoupled_decay != 0;
  factors.value_decay = static_cast<T>(1 - step.lr * step.decoupled_decay);
  factors.bias_correction2 = static_cast<T>(step.bias_correction2);
  factors.eps = static_cast<T>(options.Number("eps"));
  factors.of_gradient = static_cast<T>(step.of_gradient);
  factors.of_average = static_cast<T>(step.of_average);
  const AdamFactors<T> of_moments = MomentFactors(factors.gradient, step.beta1, step.beta2);
  return [moments, kernels, sqrt, factors, of_moments](Block& block) {
    NadamFactors<T> scaled = factors;
    AdamFactors<T> scaled_moments = of_moments;
    scaled.gradient = scaled_moments.gradient = Scaled(factors.gradient, block.coefficient);
    Roots<T> roots(sqrt);
    AdaptiveArrays<T> arrays = ArraysOf<T>(block);
    arrays.roots = roots.data();
    const AdamArrays<T> moment_arrays = MomentArraysOf(arrays);
    const int64_t elements = block.gradient.numel();
    for (int64_t begin = 0; begin < elements; begin += roots.size()) {
      const int64_t length = std::min(roots.size(), elements - begin);
      moments->adam_moments(scaled_moments, moment_arrays, begin, length);
      kernels->nadam_roots(scaled, roots.data(), length);
      roots.Take(length);
      kernels->nadam_value(scaled, arrays, begin, length);
    }
  };
}

}  // namespace

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
  const NadamStep step(options, scalars);
  const CoupledGradient gradient_of(options.IsTrue("maximize"), step.coupled_decay, dtype);
  const DecoupledDecay decayed(step.lr, step.decoupled_decay, dtype);
  const AdamMoments moments(step.beta1, step.beta2, dtype);
  const at::Scalar bias_correction2 = RoundedScalar(step.bias_correction2, dtype);
  const at::Scalar eps = RoundedScalar(options.Number("eps"), dtype);
  const at::Scalar of_gradient = RoundedScalar(step.of_gradient, dtype);
  const at::Scalar of_average = RoundedScalar(step.of_average, dtype);
  return [=](Block& block) {
    StateBlock& exp_avg = block.states[0];
    StateBlock& exp_avg_sq = block.states[1];
    const at::Tensor gradient = gradient_of(block);
    const at::Tensor value = decayed(block);
    moments(gradient, exp_avg, exp_avg_sq);
    const at::Tensor denominator = SqrtInPlace(at::div(exp_avg_sq.out, bias_correction2)).add_(eps);
    at::addcdiv_out(block.value_out, value, gradient, denominator, of_gradient);
    block.value_out.addcdiv_(exp_avg.out, denominator, of_average);
  };
}

BlockUpdate NAdamOptimizer::BeginVectorized(const OptionMap& options, at::ScalarType dtype,
                                            absl::Span<double> scalars) const {
  return dtype == at::kFloat ? VectorizedUpdate<float>(options, scalars)
                             : VectorizedUpdate<double>(options, scalars);
}

}  // namespace shardstep
