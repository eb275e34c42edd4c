#include "shardstep/optim/adagrad.h"

#include <ATen/ops/addcdiv.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/sqrt.h>

#include "shardstep/optim/scalars.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {

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
  const double step = NextStep(scalars[0]);
  const CoupledGradient gradient_of(options.IsTrue("maximize"), options.Number("weight_decay"),
                                    dtype);
  const double rate = options.Number("lr") / (1 + (step - 1) * options.Number("lr_decay"));
  const at::Scalar minus_rate = RoundedScalar(-rate, dtype);
  const at::Scalar eps = RoundedScalar(options.Number("eps"), dtype);
  return [=](Block& block) {
    StateBlock& sum = block.states[0];
    const at::Tensor gradient = gradient_of(block);
    at::addcmul_out(sum.out, sum.in, gradient, gradient);
    const at::Tensor deviation = at::sqrt(sum.out).add_(eps);
    at::addcdiv_out(block.value_out, block.value_in, gradient, deviation, minus_rate);
  };
}

}  // namespace shardstep
