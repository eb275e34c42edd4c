#include "shardstep/optim/radam.h"

#include <ATen/ops/add.h>
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
struct RadamStep {
  RadamStep(const OptionMap& options, absl::Span<double> scalars) : lr(options.Number("lr")) {
    const double step = NextStep(scalars[0]);
    std::tie(beta1, beta2) = NumberPair(options, "betas");
    const double weight_decay = options.Number("weight_decay");
    const bool decoupled = options.IsTrue("decoupled_weight_decay");
    coupled_decay = decoupled ? 0 : weight_decay;
    decoupled_decay = decoupled ? weight_decay : 0;
    bias_correction1 = 1 - std::pow(beta1, step);
    const double bias_correction2 = 1 - std::pow(beta2, step);
    correct2 = PowHalf(bias_correction2);
    const double rho_inf = 2 / (1 - beta2) - 1;
    const double rho = rho_inf - 2 * step * std::pow(beta2, step) / bias_correction2;
    rectified = rho > 5;
    rectification =
        PowHalf((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho));
  }

  double lr;
  double beta1 = 0;
  double beta2 = 0;
  double coupled_decay = 0;
  double decoupled_decay = 0;
  double bias_correction1 = 0;
  double correct2 = 0;
  bool rectified = false;
  double rectification = 0;
};

template <typename T>
BlockUpdate VectorizedUpdate(const OptionMap& options, absl::Span<double> scalars) {
  const Kernels<T>* moments = FindKernels<T>();
  const AdaptiveKernels<T>* kernels = FindAdaptiveKernels<T>();
  if (moments == nullptr || kernels == nullptr) return nullptr;
  const SqrtFunction<T> sqrt = FindSqrt<T>();
  const RadamStep step(options, scalars);
  RadamFactors<T> factors;
  factors.decays_value = step.decoupled_decay != 0;
  factors.value_decay = static_cast<T>(1 - step.lr * step.decoupled_decay);
  factors.bias_correction1 = static_cast<T>(step.bias_correction1);
  factors.rate = static_cast<T>(step.lr);
  factors.is_rectified = step.rectified;
  factors.eps = static_cast<T>(options.Number("eps"));
  factors.correct2 = static_cast<T>(step.correct2);
  factors.rectify = static_cast<T>(step.rectification);
  const AdamFactors<T> of_moments =
      MomentFactors(CoupledGradientFactors<T>(options.IsTrue("maximize"), step.coupled_decay),
                    step.beta1, step.beta2);
  return [moments, kernels, sqrt, factors, of_moments](Block& block) {
    AdamFactors<T> scaled = of_moments;
    scaled.gradient = Scaled(of_moments.gradient, block.coefficient);
    Roots<T> roots(sqrt);
    AdaptiveArrays<T> arrays = ArraysOf<T>(block);
    arrays.roots = roots.data();
    const AdamArrays<T> moment_arrays = MomentArraysOf(arrays);
    const int64_t elements = block.gradient.numel();
    for (int64_t begin = 0; begin < elements; begin += roots.size()) {
      const int64_t length = std::min(roots.size(), elements - begin);
      moments->adam_moments(scaled, moment_arrays, begin, length);
      if (factors.is_rectified) roots.Take(length);
      kernels->radam_value(factors, arrays, begin, length);
    }
  };
}

}  // namespace

std::vector<StateSpec> RAdamOptimizer::States(const OptionMap& /*options*/) const {
  return AllStates();
}

std::vector<StateSpec> RAdamOptimizer::AllStates() const {
  return {StateSpec::Scalar("step"), StateSpec::Tensor("exp_avg"), StateSpec::Tensor("exp_avg_sq")};
}

BlockUpdate RAdamOptimizer::Begin(const OptionMap& options, at::ScalarType dtype,
                                  absl::Span<double> scalars) const {
  const RadamStep step(options, scalars);
  const CoupledGradient gradient_of(options.IsTrue("maximize"), step.coupled_decay, dtype);
  const DecoupledDecay decayed(step.lr, step.decoupled_decay, dtype);
  const AdamMoments moments(step.beta1, step.beta2, dtype);
  const at::Scalar bias_correction1 = RoundedScalar(step.bias_correction1, dtype);
  const bool rectified = step.rectified;
  const at::Scalar rectify = RoundedScalar(step.rectification, dtype);
  const at::Scalar correct2 = RoundedScalar(step.correct2, dtype);
  const at::Scalar eps = RoundedScalar(options.Number("eps"), dtype);
  const at::Scalar rate = RoundedScalar(step.lr, dtype);
  return [=](Block& block) {
    StateBlock& exp_avg = block.states[0];
    StateBlock& exp_avg_sq = block.states[1];
    const at::Tensor gradient = gradient_of(block);
    const at::Tensor value = decayed(block);
    moments(gradient, exp_avg, exp_avg_sq);
    const at::Tensor update = at::div(exp_avg.out, bias_correction1).mul_(rate);
    if (rectified) {
      // Python's number / tensor is tensor.reciprocal() * number.
      update.mul_(Sqrt(exp_avg_sq.out).add_(eps).reciprocal_().mul_(correct2)).mul_(rectify);
    }
    at::add_out(block.value_out, value, update, -1);
  };
}

BlockUpdate RAdamOptimizer::BeginVectorized(const OptionMap& options, at::ScalarType dtype,
                                            absl::Span<double> scalars) const {
  return dtype == at::kFloat ? VectorizedUpdate<float>(options, scalars)
                             : VectorizedUpdate<double>(options, scalars);
}

}  // namespace shardstep
