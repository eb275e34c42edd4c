#include "shardstep/optim/adagrad.h"

#include <ATen/ops/add.h>
#include <ATen/ops/addcdiv.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/div.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/sqrt.h>

#include "shardstep/optim/scalars.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {
namespace {

// Counts a step and returns its learning rate.
double NextRate(const OptionMap& options, double& step_count) {
  const double step = NextStep(step_count);
  return options.Number("lr") / (1 + (step - 1) * options.Number("lr_decay"));
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
    const at::Tensor deviation = at::sqrt(sum.out).add_(eps);
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
    const at::Tensor deviation = at::sqrt(sum.out).add_(eps);
    at::add_out(block.value_out, block.value_in, at::div(gradient, deviation), minus_rate);
  };
}

}  // namespace shardstep
