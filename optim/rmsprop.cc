#include "shardstep/optim/rmsprop.h"

#include <ATen/ops/add.h>
#include <ATen/ops/addcdiv.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/mul.h>

#include <algorithm>

#include "shardstep/optim/adaptive_arrays.h"
#include "shardstep/optim/kernels/dispatch.h"
#include "shardstep/optim/kernels/factors.h"
#include "shardstep/optim/kernels/roots.h"
#include "shardstep/optim/scalars.h"
#include "shardstep/optim/square_root.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {
namespace {

template <typename T>
BlockUpdate VectorizedUpdate(const OptionMap& options, absl::Span<double> scalars) {
  const AdaptiveKernels<T>* kernels = FindAdaptiveKernels<T>();
  if (kernels == nullptr || options.IsTrue("centered")) return nullptr;
  const SqrtFunction<T> sqrt = FindSqrt<T>();
  NextStep(scalars[0]);
  RmspropFactors<T> factors;
  factors.gradient =
      CoupledGradientFactors<T>(options.IsTrue("maximize"), options.Number("weight_decay"));
  factors.alpha = static_cast<T>(options.Number("alpha"));
  factors.one_minus_alpha = static_cast<T>(1 - options.Number("alpha"));
  factors.eps = static_cast<T>(options.Number("eps"));
  factors.momentum = static_cast<T>(options.Number("momentum"));
  factors.minus_lr = static_cast<T>(-options.Number("lr"));
  return [kernels, sqrt, factors](Block& block) {
    RmspropFactors<T> scaled = factors;
    scaled.gradient = Scaled(factors.gradient, block.coefficient);
    Roots<T> roots(sqrt);
    AdaptiveArrays<T> arrays = ArraysOf<T>(block);
    arrays.roots = roots.data();
    const int64_t elements = block.gradient.numel();
    for (int64_t begin = 0; begin < elements; begin += roots.size()) {
      const int64_t length = std::min(roots.size(), elements - begin);
      kernels->rmsprop_square(scaled, arrays, begin, length);
      roots.Take(length);
      kernels->rmsprop_value(scaled, arrays, begin, length);
    }
  };
}

}  // namespace

std::vector<StateSpec> RMSpropOptimizer::States(const OptionMap& options) const {
  std::vector<StateSpec> states = {StateSpec::Scalar("step"), StateSpec::Tensor("square_avg")};
  if (options.Number("momentum") > 0) states.push_back(StateSpec::Tensor("momentum_buffer"));
  if (options.IsTrue("centered")) states.push_back(StateSpec::Tensor("grad_avg"));
  return states;
}

std::vector<StateSpec> RMSpropOptimizer::AllStates() const {
  return {StateSpec::Scalar("step"), StateSpec::Tensor("square_avg"),
          StateSpec::Tensor("momentum_buffer"), StateSpec::Tensor("grad_avg")};
}

BlockUpdate RMSpropOptimizer::Begin(const OptionMap& options, at::ScalarType dtype,
                                    absl::Span<double> scalars) const {
  NextStep(scalars[0]);
  const CoupledGradient gradient_of(options.IsTrue("maximize"), options.Number("weight_decay"),
                                    dtype);
  const double alpha_value = options.Number("alpha");
  const double momentum_value = options.Number("momentum");
  const bool has_momentum = momentum_value > 0;
  const bool centered = options.IsTrue("centered");
  const at::Tensor alpha = ScalarTensor(alpha_value, dtype);
  const at::Tensor momentum = ScalarTensor(momentum_value, dtype);
  const at::Scalar one_minus_alpha = RoundedScalar(1 - alpha_value, dtype);
  const at::Scalar eps = RoundedScalar(options.Number("eps"), dtype);
  const at::Scalar minus_lr = RoundedScalar(-options.Number("lr"), dtype);
  return [=](Block& block) {
    StateBlock& square_avg = block.states[0];
    const at::Tensor gradient = gradient_of(block);
    at::mul_out(square_avg.out, square_avg.in, alpha);
    square_avg.out.addcmul_(gradient, gradient, one_minus_alpha);
    at::Tensor deviation;
    if (centered) {
      StateBlock& grad_avg = block.states.back();
      at::lerp_out(grad_avg.out, grad_avg.in, gradient, one_minus_alpha);
      deviation = SqrtInPlace(at::addcmul(square_avg.out, grad_avg.out, grad_avg.out, -1));
    } else {
      deviation = Sqrt(square_avg.out);
    }
    deviation.add_(eps);
    if (!has_momentum) {
      at::addcdiv_out(block.value_out, block.value_in, gradient, deviation, minus_lr);
      return;
    }
    StateBlock& buffer = block.states[1];
    at::mul_out(buffer.out, buffer.in, momentum);
    buffer.out.addcdiv_(gradient, deviation);
    at::add_out(block.value_out, block.value_in, buffer.out, minus_lr);
  };
}

BlockUpdate RMSpropOptimizer::BeginVectorized(const OptionMap& options, at::ScalarType dtype,
                                              absl::Span<double> scalars) const {
  return dtype == at::kFloat ? VectorizedUpdate<float>(options, scalars)
                             : VectorizedUpdate<double>(options, scalars);
}

}  // namespace shardstep
