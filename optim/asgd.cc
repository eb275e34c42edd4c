#include "shardstep/optim/asgd.h"

#include <ATen/ops/add.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>

#include <algorithm>
#include <cmath>

#include "shardstep/optim/kernels/dispatch.h"
#include "shardstep/optim/kernels/factors.h"
#include "shardstep/optim/scalars.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {
namespace {

// The numbers of a step: eta and mu are those of the step before.
struct AsgdStep {
  AsgdStep(const OptionMap& options, absl::Span<double> scalars) {
    const double step = NextStep(scalars[0]);
    eta = scalars[1];
    mu = scalars[2];
    const double lr = options.Number("lr");
    const double lambd = options.Number("lambd");
    value_decay = 1 - lambd * eta;
    scalars[1] = static_cast<float>(lr / std::pow(1 + lambd * lr * step, options.Number("alpha")));
    scalars[2] = static_cast<float>(1 / std::max(1.0, step - options.Number("t0")));
  }

  double eta = 0;
  double mu = 0;
  double value_decay = 0;
};

template <typename T>
BlockUpdate VectorizedUpdate(const OptionMap& options, absl::Span<double> scalars) {
  const Kernels<T>* kernels = FindKernels<T>();
  if (kernels == nullptr) return nullptr;
  const AsgdStep step(options, scalars);
  AsgdFactors<T> factors;
  factors.gradient =
      CoupledGradientFactors<T>(options.IsTrue("maximize"), options.Number("weight_decay"));
  factors.averages = step.mu != 1;
  factors.value_decay = static_cast<T>(step.value_decay);
  factors.minus_eta = static_cast<T>(-step.eta);
  factors.weight = static_cast<T>(step.mu);
  return [kernels, factors](Block& block) {
    AsgdFactors<T> scaled = factors;
    scaled.gradient = Scaled(factors.gradient, block.coefficient);
    const StateBlock& ax = block.states[0];
    kernels->asgd(scaled,
                  {block.gradient.const_data_ptr<T>(), block.value_in.const_data_ptr<T>(),
                   block.value_out.mutable_data_ptr<T>(), ax.in.const_data_ptr<T>(),
                   ax.out.mutable_data_ptr<T>()},
                  block.gradient.numel());
  };
}

}  // namespace

std::vector<StateSpec> ASGDOptimizer::States(const OptionMap& /*options*/) const {
  return AllStates();
}

std::vector<StateSpec> ASGDOptimizer::AllStates() const {
  return {StateSpec::Scalar("step"), StateSpec::Scalar("eta"), StateSpec::Scalar("mu"),
          StateSpec::Tensor("ax")};
}

std::optional<double> ASGDOptimizer::InitialValue(absl::string_view state,
                                                  const OptionMap& options) const {
  if (state == "eta") return static_cast<float>(options.Number("lr"));
  return state == "mu" ? 1 : 0;
}

BlockUpdate ASGDOptimizer::Begin(const OptionMap& options, at::ScalarType dtype,
                                 absl::Span<double> scalars) const {
  const AsgdStep step(options, scalars);
  const CoupledGradient gradient_of(options.IsTrue("maximize"), options.Number("weight_decay"),
                                    dtype);
  const at::Tensor decay = ScalarTensor(step.value_decay, dtype);
  const at::Scalar minus_eta = RoundedScalar(-step.eta, dtype);
  const bool averages = step.mu != 1;
  const at::Tensor weight = ScalarTensor(step.mu, dtype);
  return [=](Block& block) {
    StateBlock& ax = block.states[0];
    const at::Tensor gradient = gradient_of(block);
    at::mul_out(block.value_out, block.value_in, decay);
    block.value_out.add_(gradient, minus_eta);
    if (averages) {
      at::add_out(ax.out, ax.in, at::sub(block.value_out, ax.in).mul_(weight));
    } else {
      ax.out.copy_(block.value_out);
    }
  };
}

BlockUpdate ASGDOptimizer::BeginVectorized(const OptionMap& options, at::ScalarType dtype,
                                           absl::Span<double> scalars) const {
  return dtype == at::kFloat ? VectorizedUpdate<float>(options, scalars)
                             : VectorizedUpdate<double>(options, scalars);
}

}  // namespace shardstep
