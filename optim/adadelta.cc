#include "shardstep/optim/adadelta.h"

#include <ATen/ops/add.h>
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
  if (kernels == nullptr) return nullptr;
  const SqrtFunction<T> sqrt = FindSqrt<T>();
  NextStep(scalars[0]);
  AdadeltaFactors<T> factors;
  factors.gradient =
      CoupledGradientFactors<T>(options.IsTrue("maximize"), options.Number("weight_decay"));
  factors.rho = static_cast<T>(options.Number("rho"));
  factors.one_minus_rho = static_cast<T>(1 - options.Number("rho"));
  factors.eps = static_cast<T>(options.Number("eps"));
  factors.minus_lr = static_cast<T>(-options.Number("lr"));
  return [kernels, sqrt, factors](Block& block) {
    AdadeltaFactors<T> scaled = factors;
    scaled.gradient = Scaled(factors.gradient, block.coefficient);
    Roots<T> roots(sqrt);
    Roots<T> second_roots(sqrt);
    AdaptiveArrays<T> arrays = ArraysOf<T>(block);
    arrays.roots = roots.data();
    arrays.second_roots = second_roots.data();
    const int64_t elements = block.gradient.numel();
    for (int64_t begin = 0; begin < elements; begin += roots.size()) {
      const int64_t length = std::min(roots.size(), elements - begin);
      kernels->adadelta_square(scaled, arrays, begin, length);
      roots.Take(length);
      second_roots.Take(length);
      kernels->adadelta_value(scaled, arrays, begin, length);
    }
  };
}

}  // namespace

std::vector<StateSpec> AdadeltaOptimizer::States(const OptionMap& /*options*/) const {
  return AllStates();
}

std::vector<StateSpec> AdadeltaOptimizer::AllStates() const {
  return {StateSpec::Scalar("step"), StateSpec::Tensor("square_avg"),
          StateSpec::Tensor("acc_delta")};
}

BlockUpdate AdadeltaOptimizer::Begin(const OptionMap& options, at::ScalarType dtype,
                                     absl::Span<double> scalars) const {
  NextStep(scalars[0]);
  const CoupledGradient gradient_of(options.IsTrue("maximize"), options.Number("weight_decay"),
                                    dtype);
  const double rho_value = options.Number("rho");
  const at::Tensor rho = ScalarTensor(rho_value, dtype);
  const at::Scalar one_minus_rho = RoundedScalar(1 - rho_value, dtype);
  const at::Scalar eps = RoundedScalar(options.Number("eps"), dtype);
  const at::Scalar minus_lr = RoundedScalar(-options.Number("lr"), dtype);
  return [=](Block& block) {
    StateBlock& square_avg = block.states[0];
    StateBlock& acc_delta = block.states[1];
    const at::Tensor gradient = gradient_of(block);
    at::mul_out(square_avg.out, square_avg.in, rho);
    square_avg.out.addcmul_(gradient, gradient, one_minus_rho);
    const at::Tensor deviation = SqrtInPlace(at::add(square_avg.out, eps));
    const at::Tensor delta = SqrtInPlace(at::add(acc_delta.in, eps));
    delta.div_(deviation).mul_(gradient);
    at::mul_out(acc_delta.out, acc_delta.in, rho);
    acc_delta.out.addcmul_(delta, delta, one_minus_rho);
    at::add_out(block.value_out, block.value_in, delta, minus_lr);
  };
}

BlockUpdate AdadeltaOptimizer::BeginVectorized(const OptionMap& options, at::ScalarType dtype,
                                               absl::Span<double> scalars) const {
  return dtype == at::kFloat ? VectorizedUpdate<float>(options, scalars)
                             : VectorizedUpdate<double>(options, scalars);
}

}  // namespace shardstep
