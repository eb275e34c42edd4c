#include "shardstep/optim/adadelta.h"

#include <ATen/ops/add.h>
#include <ATen/ops/mul.h>

#include "shardstep/optim/scalars.h"
#include "shardstep/optim/square_root.h"
#include "shardstep/optim/torch_parts.h"

namespace shardstep {

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

}  // namespace shardstep
