#include "shardstep/optim/adam.h"

#include <ATen/ops/add.h>
#include <ATen/ops/addcdiv.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/sqrt.h>

#include <cmath>

#include "shardstep/optim/scalars.h"

namespace shardstep {
namespace {

// The factors of one step, rounded to the parameter's dtype.
struct AdamStep {
  bool maximize;
  bool amsgrad;
  bool decays_gradient;
  bool decays_value;
  at::Scalar weight_decay;
  at::Tensor value_decay;
  at::Scalar one_minus_beta1;
  at::Tensor beta2;
  at::Scalar one_minus_beta2;
  at::Scalar bias_correction2_sqrt;
  at::Scalar eps;
  at::Scalar minus_step_size;

  void operator()(Block& block) const {
    StateBlock& exp_avg = block.states[0];
    StateBlock& exp_avg_sq = block.states[1];
    for (StateBlock& state : block.states) {
      if (!state.in.defined()) state.in = state.out.zero_();
    }
    at::Tensor gradient = maximize ? at::neg(block.gradient) : block.gradient;
    if (decays_gradient) gradient = at::add(gradient, block.value_in, weight_decay);
    at::Tensor value = block.value_in;
    if (decays_value) value = at::mul_out(block.value_out, block.value_in, value_decay);

    at::lerp_out(exp_avg.out, exp_avg.in, gradient, one_minus_beta1);
    at::mul_out(exp_avg_sq.out, exp_avg_sq.in, beta2);
    exp_avg_sq.out.addcmul_(gradient, gradient, one_minus_beta2);
    if (amsgrad) at::maximum_out(block.states[2].out, block.states[2].in, exp_avg_sq.out);

    at::Tensor denominator = at::sqrt(amsgrad ? block.states[2].out : exp_avg_sq.out);
    denominator.div_(bias_correction2_sqrt).add_(eps);
    at::addcdiv_out(block.value_out, value, exp_avg.out, denominator, minus_step_size);
  }
};

}  // namespace

std::vector<StateSpec> AdamOptimizer::States(const OptionMap& options) const {
  std::vector<StateSpec> states = AllStates();
  if (!options.IsTrue("amsgrad")) states.pop_back();
  return states;
}

std::vector<StateSpec> AdamOptimizer::AllStates() const {
  constexpr StateSpec::Kind kLikeParameter = StateSpec::Kind::kLikeParameter;
  return {{"step", StateSpec::Kind::kScalar, DType::kFloat32},
          {"exp_avg", kLikeParameter, DType::kInvalid},
          {"exp_avg_sq", kLikeParameter, DType::kInvalid},
          {"max_exp_avg_sq", kLikeParameter, DType::kInvalid}};
}

BlockUpdate AdamOptimizer::Begin(const OptionMap& options, at::ScalarType dtype,
                                 absl::Span<double> scalars) const {
  const auto& betas = std::get<OptionValue::List>(options.Find("betas")->value());
  const double beta1 = *betas[0].AsNumber();
  const double beta2 = *betas[1].AsNumber();
  const double lr = options.Number("lr");
  const double weight_decay = options.Number("weight_decay");
  const bool decoupled = options.IsTrue("decoupled_weight_decay");

  scalars[0] = static_cast<float>(scalars[0]) + 1.0f;
  const double step_count = scalars[0];
  const double bias_correction1 = 1 - std::pow(beta1, step_count);
  const double bias_correction2 = 1 - std::pow(beta2, step_count);
  const double step_size = lr / bias_correction1;
  // Python's x**0.5 is C's pow, which differs from sqrt in the last bit now and then. Clang would
  // turn pow with a constant 0.5 into sqrt.
  volatile double half = 0.5;

  AdamStep step;
  step.maximize = options.IsTrue("maximize");
  step.amsgrad = options.IsTrue("amsgrad");
  step.decays_gradient = weight_decay != 0 && !decoupled;
  step.decays_value = weight_decay != 0 && decoupled;
  step.weight_decay = RoundedScalar(weight_decay, dtype);
  step.value_decay = ScalarTensor(1 - lr * weight_decay, dtype);
  step.one_minus_beta1 = RoundedScalar(1 - beta1, dtype);
  step.beta2 = ScalarTensor(beta2, dtype);
  step.one_minus_beta2 = RoundedScalar(1 - beta2, dtype);
  step.bias_correction2_sqrt = RoundedScalar(std::pow(bias_correction2, half), dtype);
  step.eps = RoundedScalar(options.Number("eps"), dtype);
  step.minus_step_size = RoundedScalar(-step_size, dtype);
  return step;
}

}  // namespace shardstep
