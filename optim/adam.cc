#include "shardstep/optim/adam.h"

#include <ATen/ops/addcdiv.h>
#include <ATen/ops/maximum.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "shardstep/optim/kernels/dispatch.h"
#include "shardstep/optim/kernels/factors.h"
#include "shardstep/optim/kernels/roots.h"
#include "shardstep/optim/scalars.h"
#include "shardstep/optim/square_root.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {
namespace {

// One step's numbers, in double.
struct AdamStep {
  AdamStep(const OptionMap& options, absl::Span<double> scalars)
      : maximize(options.IsTrue("maximize")),
        amsgrad(options.IsTrue("amsgrad")),
        lr(options.Number("lr")),
        eps(options.Number("eps")) {
    const double step = NextStep(scalars[0]);
    std::tie(beta1, beta2) = NumberPair(options, "betas");
    const double weight_decay = options.Number("weight_decay");
    const bool decoupled = options.IsTrue("decoupled_weight_decay");
    coupled_decay = decoupled ? 0 : weight_decay;
    decoupled_decay = decoupled ? weight_decay : 0;
    bias_correction2_sqrt = PowHalf(1 - std::pow(beta2, step));
    step_size = lr / (1 - std::pow(beta1, step));
  }

  bool maximize;
  bool amsgrad;
  double lr;
  double eps;
  double beta1 = 0;
  double beta2 = 0;
  double coupled_decay = 0;
  double decoupled_decay = 0;
  double bias_correction2_sqrt = 0;
  double step_size = 0;
};

template <typename T>
AdamFactors<T> FactorsOf(const AdamStep& step) {
  AdamFactors<T> factors;
  factors.gradient = CoupledGradientFactors<T>(step.maximize, step.coupled_decay);
  factors.amsgrad = step.amsgrad;
  factors.decays_value = step.decoupled_decay != 0;
  factors.value_decay = static_cast<T>(1 - step.lr * step.decoupled_decay);
  const LerpWeight<T> weight(1 - step.beta1);
  factors.from_gradient = weight.from_gradient;
  factors.exp_avg_weight = weight.factor;
  factors.beta2 = static_cast<T>(step.beta2);
  factors.one_minus_beta2 = static_cast<T>(1 - step.beta2);
  factors.bias_correction2_sqrt = static_cast<T>(step.bias_correction2_sqrt);
  factors.eps = static_cast<T>(step.eps);
  factors.minus_step_size = static_cast<T>(-step.step_size);
  return factors;
}

template <typename T>
AdamArrays<T> ArraysOf(const Block& block, bool amsgrad) {
  AdamArrays<T> arrays;
  arrays.gradient = block.gradient.const_data_ptr<T>();
  arrays.value_in = block.value_in.const_data_ptr<T>();
  arrays.value_out = block.value_out.mutable_data_ptr<T>();
  arrays.exp_avg_in = block.states[0].in.const_data_ptr<T>();
  arrays.exp_avg_out = block.states[0].out.mutable_data_ptr<T>();
  arrays.exp_avg_sq_in = block.states[1].in.const_data_ptr<T>();
  arrays.exp_avg_sq_out = block.states[1].out.mutable_data_ptr<T>();
  arrays.maximum_in = amsgrad ? block.states[2].in.const_data_ptr<T>() : nullptr;
  arrays.maximum_out = amsgrad ? block.states[2].out.mutable_data_ptr<T>() : nullptr;
  return arrays;
}

template <typename T>
BlockUpdate VectorizedUpdate(const OptionMap& options, absl::Span<double> scalars) {
  const Kernels<T>* kernels = FindKernels<T>();
  if (kernels == nullptr) return nullptr;
  const SqrtFunction<T> sqrt = FindSqrt<T>();
  const AdamFactors<T> factors = FactorsOf<T>(AdamStep(options, scalars));
  return [kernels, sqrt, factors](Block& block) {
    AdamFactors<T> scaled = factors;
    scaled.gradient = Scaled(factors.gradient, block.coefficient);
    AdamArrays<T> arrays = ArraysOf<T>(block, factors.amsgrad);
    Roots<T> roots(sqrt);
    arrays.roots = roots.data();
    const int64_t elements = block.gradient.numel();
    for (int64_t begin = 0; begin < elements; begin += roots.size()) {
      const int64_t length = std::min(roots.size(), elements - begin);
      kernels->adam_moments(scaled, arrays, begin, length);
      roots.Take(length);
      kernels->adam_value(scaled, arrays, begin, length);
    }
  };
}

}  // namespace

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
  const AdamStep step(options, scalars);
  const bool amsgrad = step.amsgrad;
  const CoupledGradient gradient_of(step.maximize, step.coupled_decay, dtype);
  const DecoupledDecay decayed(step.lr, step.decoupled_decay, dtype);
  const AdamMoments moments(step.beta1, step.beta2, dtype);
  const at::Scalar bias_correction2_sqrt = RoundedScalar(step.bias_correction2_sqrt, dtype);
  const at::Scalar eps = RoundedScalar(step.eps, dtype);
  const at::Scalar minus_step_size = RoundedScalar(-step.step_size, dtype);
  return [=](Block& block) {
    StateBlock& exp_avg = block.states[0];
    StateBlock& exp_avg_sq = block.states[1];
    const at::Tensor gradient = gradient_of(block);
    const at::Tensor value = decayed(block);
    moments(gradient, exp_avg, exp_avg_sq);
    if (amsgrad) at::maximum_out(block.states[2].out, block.states[2].in, exp_avg_sq.out);
    const at::Tensor denominator = Sqrt(amsgrad ? block.states[2].out : exp_avg_sq.out);
    denominator.div_(bias_correction2_sqrt).add_(eps);
    at::addcdiv_out(block.value_out, value, exp_avg.out, denominator, minus_step_size);
  };
}

BlockUpdate AdamOptimizer::BeginVectorized(const OptionMap& options, at::ScalarType dtype,
                                           absl::Span<double> scalars) const {
  return dtype == at::kFloat ? VectorizedUpdate<float>(options, scalars)
                             : VectorizedUpdate<double>(options, scalars);
}

}  // namespace shardstep
