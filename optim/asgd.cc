#include "shardstep/optim/asgd.h"

#include <ATen/ops/add.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>

#include <algorithm>
#include <cmath>

#include "shardstep/optim/scalars.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {

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
  const double step = NextStep(scalars[0]);
  const double eta = scalars[1];
  const double mu = scalars[2];
  const double lr = options.Number("lr");
  const double lambd = options.Number("lambd");
  scalars[1] = static_cast<float>(lr / std::pow(1 + lambd * lr * step, options.Number("alpha")));
  scalars[2] = static_cast<float>(1 / std::max(1.0, step - options.Number("t0")));

  const CoupledGradient gradient_of(options.IsTrue("maximize"), options.Number("weight_decay"),
                                    dtype);
  const at::Tensor decay = ScalarTensor(1 - lambd * eta, dtype);
  const at::Scalar minus_eta = RoundedScalar(-eta, dtype);
  const bool averages = mu != 1;
  const at::Tensor weight = ScalarTensor(mu, dtype);
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

}  // namespace shardstep
