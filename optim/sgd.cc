#include "shardstep/optim/sgd.h"

#include <ATen/ops/add.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/neg.h>

#include "shardstep/optim/scalars.h"

namespace shardstep {
namespace {

// The factors of one step, rounded to the parameter's dtype.
struct SgdStep {
  bool maximize;
  bool decays;
  bool has_momentum;
  bool nesterov;
  at::Scalar weight_decay;
  at::Tensor momentum;
  at::Scalar nesterov_momentum;
  at::Scalar undamped;
  at::Scalar minus_lr;

  void operator()(Block& block) const {
    at::Tensor direction = maximize ? at::neg(block.gradient) : block.gradient;
    if (decays) direction = at::add(direction, block.value_in, weight_decay);
    if (has_momentum) direction = ApplyMomentum(direction, block.states[0]);
    at::add_out(block.value_out, block.value_in, direction, minus_lr);
  }

  at::Tensor ApplyMomentum(const at::Tensor& gradient, StateBlock& buffer) const {
    if (!buffer.in.defined()) {
      buffer.out.copy_(gradient);
    } else {
      at::mul_out(buffer.out, buffer.in, momentum);
      buffer.out.add_(gradient, undamped);
    }
    return nesterov ? at::add(gradient, buffer.out, nesterov_momentum) : buffer.out;
  }
};

}  // namespace

std::vector<StateSpec> SgdOptimizer::States(const OptionMap& options) const {
  if (options.Number("momentum") == 0) return {};
  return AllStates();
}

std::vector<StateSpec> SgdOptimizer::AllStates() const {
  return {{"momentum_buffer", StateSpec::Kind::kLikeParameter, DType::kInvalid}};
}

BlockUpdate SgdOptimizer::Begin(const OptionMap& options, at::ScalarType dtype,
                                absl::Span<double> /*scalars*/) const {
  const double weight_decay = options.Number("weight_decay");
  const double momentum = options.Number("momentum");
  SgdStep step;
  step.maximize = options.IsTrue("maximize");
  step.decays = weight_decay != 0;
  step.has_momentum = momentum != 0;
  step.nesterov = options.IsTrue("nesterov");
  step.weight_decay = RoundedScalar(weight_decay, dtype);
  step.momentum = ScalarTensor(momentum, dtype);
  step.nesterov_momentum = RoundedScalar(momentum, dtype);
  step.undamped = RoundedScalar(1 - options.Number("dampening"), dtype);
  step.minus_lr = RoundedScalar(-options.Number("lr"), dtype);
  return step;
}

}  // namespace shardstep
