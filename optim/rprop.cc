#include "shardstep/optim/rprop.h"

#include <ATen/ops/addcmul.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sign.h>

#include "shardstep/optim/adaptive_arrays.h"
#include "shardstep/optim/kernels/dispatch.h"
#include "shardstep/optim/kernels/factors.h"
#include "shardstep/optim/scalars.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {
namespace {

template <typename T>
BlockUpdate VectorizedUpdate(const OptionMap& options, absl::Span<double> scalars) {
  const AdaptiveKernels<T>* kernels = FindAdaptiveKernels<T>();
  const auto [shrink, grow] = NumberPair(options, "etas");
  const auto [smallest, largest] = NumberPair(options, "step_sizes");
  // PyTorch tells elements by their factors, which rounding may make equal.
  const bool distinct = 0 < static_cast<T>(shrink) && static_cast<T>(shrink) < 1;
  if (kernels == nullptr || !distinct) return nullptr;
  NextStep(scalars[0]);
  const RpropFactors<T> factors = {CoupledGradientFactors<T>(options.IsTrue("maximize"), 0),
                                   static_cast<T>(shrink), static_cast<T>(grow),
                                   static_cast<T>(smallest), static_cast<T>(largest)};
  return [kernels, factors](Block& block) {
    RpropFactors<T> scaled = factors;
    scaled.gradient = Scaled(factors.gradient, block.coefficient);
    kernels->rprop(scaled, ArraysOf<T>(block), block.gradient.numel());
  };
}

}  // namespace

std::vector<StateSpec> RpropOptimizer::States(const OptionMap& /*options*/) const {
  return AllStates();
}

std::vector<StateSpec> RpropOptimizer::AllStates() const {
  return {StateSpec::Scalar("step"), StateSpec::Tensor("prev"), StateSpec::Tensor("step_size")};
}

std::optional<double> RpropOptimizer::InitialValue(absl::string_view state,
                                                   const OptionMap& options) const {
  return state == "step_size" ? options.Number("lr") : 0;
}

BlockUpdate RpropOptimizer::Begin(const OptionMap& options, at::ScalarType dtype,
                                  absl::Span<double> scalars) const {
  NextStep(scalars[0]);
  const CoupledGradient gradient_of(options.IsTrue("maximize"), 0, dtype);
  const auto [shrink, grow] = NumberPair(options, "etas");
  const auto [smallest, largest] = NumberPair(options, "step_sizes");
  const at::Scalar eta_minus = RoundedScalar(shrink, dtype);
  const at::Scalar eta_plus = RoundedScalar(grow, dtype);
  const at::Scalar min = RoundedScalar(smallest, dtype);
  const at::Scalar max = RoundedScalar(largest, dtype);
  return [=](Block& block) {
    StateBlock& prev = block.states[0];
    StateBlock& step_size = block.states[1];
    at::Tensor gradient = gradient_of(block);
    const at::Tensor factor = at::mul(gradient, prev.in).sign_();
    factor.masked_fill_(factor.gt(0), eta_plus);
    factor.masked_fill_(factor.lt(0), eta_minus);
    factor.masked_fill_(factor.eq(0), 1);
    at::mul_out(step_size.out, step_size.in, factor).clamp_(min, max);
    gradient = gradient.masked_fill(factor.eq(eta_minus), 0);
    at::addcmul_out(block.value_out, block.value_in, at::sign(gradient), step_size.out, -1);
    prev.out.copy_(gradient);
  };
}

BlockUpdate RpropOptimizer::BeginVectorized(const OptionMap& options, at::ScalarType dtype,
                                            absl::Span<double> scalars) const {
  return dtype == at::kFloat ? VectorizedUpdate<float>(options, scalars)
                             : VectorizedUpdate<double>(options, scalars);
}

}  // namespace shardstep
