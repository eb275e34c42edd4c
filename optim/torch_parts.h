// What several classes of torch.optim do alike. Pure functions and plain data, safe from any
// thread.
#ifndef SHARDSTEP_OPTIM_TORCH_PARTS_H_
#define SHARDSTEP_OPTIM_TORCH_PARTS_H_

#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/neg.h>

#include <cmath>
#include <utility>
#include <variant>

#include "absl/strings/string_view.h"
#include "shardstep/optim/optimizer.h"
#include "shardstep/optim/options/option_value.h"
#include "shardstep/optim/scalars.h"

namespace shardstep {

// Counts a step and returns it. PyTorch counts in float32, which stops at 2^24.
inline double NextStep(double& step) {
  step = static_cast<float>(step) + 1.0f;
  return step;
}

// Python's x**0.5, which is C's pow and differs from sqrt in the last bit now and then.
inline double PowHalf(double x) {
  volatile double half = 0.5;  // Clang would turn pow with a constant 0.5 into sqrt.
  return std::pow(x, half);
}

// An option of two numbers (betas, etas, step_sizes), of a map that passed CheckOptions.
inline std::pair<double, double> NumberPair(const OptionMap& options, absl::string_view name) {
  const auto& list = std::get<OptionValue::List>(options.Find(name)->value());
  return {*list[0].AsNumber(), *list[1].AsNumber()};
}

// The gradient as a class takes it in: negated if the group maximizes, and only then with
// weight_decay * parameter added. Reads value_in; call it before value_out is written.
class CoupledGradient {
 public:
  CoupledGradient(bool maximize, double weight_decay, at::ScalarType dtype)
      : maximize_(maximize),
        decays_(weight_decay != 0),
        weight_decay_(RoundedScalar(weight_decay, dtype)) {}

  at::Tensor operator()(const Block& block) const {
    const at::Tensor gradient = maximize_ ? at::neg(block.gradient) : block.gradient;
    return decays_ ? at::add(gradient, block.value_in, weight_decay_) : gradient;
  }

 private:
  bool maximize_;
  bool decays_;
  at::Scalar weight_decay_;
};

// Decay of the parameter itself (AdamW's): parameter * (1 - lr * weight_decay), or as it is where
// weight_decay is 0.
class DecoupledDecay {
 public:
  DecoupledDecay(double lr, double weight_decay, at::ScalarType dtype)
      : decays_(weight_decay != 0), factor_(ScalarTensor(1 - lr * weight_decay, dtype)) {}

  // The decayed parameter, which is value_in or, written, value_out.
  at::Tensor operator()(Block& block) const {
    return decays_ ? at::mul_out(block.value_out, block.value_in, factor_) : block.value_in;
  }

 private:
  bool decays_;
  at::Tensor factor_;
};

// The two running means of Adam, NAdam and RAdam: of the gradient and of its square.
class AdamMoments {
 public:
  AdamMoments(double beta1, double beta2, at::ScalarType dtype)
      : one_minus_beta1_(RoundedScalar(1 - beta1, dtype)),
        beta2_(ScalarTensor(beta2, dtype)),
        one_minus_beta2_(RoundedScalar(1 - beta2, dtype)) {}

  void operator()(const at::Tensor& gradient, StateBlock& exp_avg, StateBlock& exp_avg_sq) const {
    at::lerp_out(exp_avg.out, exp_avg.in, gradient, one_minus_beta1_);
    at::mul_out(exp_avg_sq.out, exp_avg_sq.in, beta2_);
    exp_avg_sq.out.addcmul_(gradient, gradient, one_minus_beta2_);
  }

 private:
  at::Scalar one_minus_beta1_;
  at::Tensor beta2_;
  at::Scalar one_minus_beta2_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_TORCH_PARTS_H_
