#include "shardstep/optim/adagrad.h"

#include <ATen/ops/add.h>
#include <ATen/ops/addcdiv.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/div.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/neg.h>

#include <algorithm>

#include "shardstep/optim/kernels/dispatch.h"
#include "shardstep/optim/kernels/factors.h"
#include "shardstep/optim/kernels/roots.h"
#include "shardstep/optim/scalars.h"
#include "shardstep/optim/square_root.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {
namespace {

// Counts a step and returns its learning rate.
double NextRate(const OptionMap& options, double& step_count) {
  const double step = NextStep(step_count);
  return options.Number("lr") / (1 + (step - 1) * options.Number("lr_decay"));
}

template <typename T>
BlockUpdate VectorizedUpdate(const OptionMap& options, absl::Span<double> scalars) {
  const Kernels<T>* kernels = FindKernels<T>();
  if (kernels == nullptr) return nullptr;
  const SqrtFunction<T> sqrt = FindSqrt<T>();
  AdagradFactors<T> factors;
  factors.gradient =
      CoupledGradientFactors<T>(options.IsTrue("maximize"), options.Number("weight_decay"));
  factors.eps = static_cast<T>(options.Number("eps"));
  factors.minus_rate = static_cast<T>(-NextRate(options, scalars[0]));
  return [kernels, sqrt, factors](Block& block) {
    AdagradFactors<T> scaled = factors;
    scaled.gradient = Scaled(factors.gradient, block.coefficient);
    Roots<T> roots(sqrt);
    const StateBlock& sum = block.states[0];
    const AdagradArrays<T> arrays = {
        block.gradient.const_data_ptr<T>(),    block.value_in.const_data_ptr<T>(),
        block.value_out.mutable_data_ptr<T>(), sum.in.const_data_ptr<T>(),
        sum.out.mutable_data_ptr<T>(),         roots.data()};
    const int64_t elements = block.gradient.numel();
    for (int64_t begin = 0; begin < elements; begin += roots.size()) {
      const int64_t length = std::min(roots.size(), elements - begin);
      kernels->adagrad_sum(scaled, arrays, begin, length);
      roots.Take(length);
      kernels->adagrad_value(scaled, arrays, begin, length);
    }
  };
}

}  // namespace

std::vector<StateSpec> AdagradOptimizer::States(const OptionMap& /*options*/) const {
  return AllStates();
}

std::vector<StateSpec> AdagradOptimizer::AllStates() const {
  return {StateSpec::Scalar("step"), StateSpec::Tensor("sum")};
}

std::optional<double> AdagradOptimizer::InitialValue(absl::string_view state,
                                                     const OptionMap& options) const {
  return state == "sum" ? options.Number("initial_accumulator_value") : 0;
}

BlockUpdate AdagradOptimizer::Begin(const OptionMap& options, at::ScalarType dtype,
                                    absl::Span<double> scalars) const {
  const CoupledGradient gradient_of(options.IsTrue("maximize"), options.Number("weight_decay"),
                                    dtype);
  const at::Scalar minus_rate = RoundedScalar(-NextRate(options, scalars[0]), dtype);
  const at::Scalar eps = RoundedScalar(options.Number("eps"), dtype);
  return [=](Block& block) {
    StateBlock& sum = block.states[0];
    const at::Tensor gradient = gradient_of(block);
    at::addcmul_out(sum.out, sum.in, gradient, gradient);
    const at::Tensor deviation = Sqrt(sum.out).add_(eps);
    at::addcdiv_out(block.value_out, block.value_in, gradient, deviation, minus_rate);
  };
}

BlockUpdate AdagradOptimizer::BeginRows(const OptionMap& options, at::ScalarType dtype,
                                        absl::Span<double> scalars) const {
  const bool maximize = options.IsTrue("maximize");
  const at::Scalar minus_rate = RoundedScalar(-NextRate(options, scalars[0]), dtype);
  const at::Scalar eps = RoundedScalar(options.Number("eps"), dtype);
  return [=](Block& block) {
    StateBlock& sum = block.states[0];
    const at::Tensor gradient = maximize ? at::neg(block.gradient) : block.gradient;
    at::add_out(sum.out, sum.in, at::mul(gradient, gradient));
    const at::Tensor deviation = Sqrt(sum.out).add_(eps);
    at::add_out(block.value_out, block.value_in, at::div(gradient, deviation), minus_rate);
  };
}

BlockUpdate AdagradOptimizer::BeginVectorized(const OptionMap& options, at::ScalarType dtype,
                                              absl::Span<double> scalars) const {
  return dtype == at::kFloat ? VectorizedUpdate<float>(options, scalars)
                             : VectorizedUpdate<double>(options, scalars);
}

}  // namespace shardstep
