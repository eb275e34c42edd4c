// How a user names an optimizer and its options, in LibTorch's spelling:
//
//   shardstep::AdamWOptions(1e-3).weight_decay(0.01)
//   shardstep::OptimizerOptions{"SGD", {{"lr", 0.1}, {"momentum", 0.9}}}     // by name
//
// Plain data; nothing is checked here (CompleteOptions does, where the optimizer is made). What is
// not set keeps the default of PyTorch 2.11. Every number is dimensionless.
#ifndef SHARDSTEP_OPTIM_OPTIONS_OPTIMIZER_OPTIONS_H_
#define SHARDSTEP_OPTIM_OPTIONS_OPTIMIZER_OPTIONS_H_

#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "shardstep/optim/options/option_value.h"

namespace shardstep {

// An optimizer by name: any of KnownOptimizers(), with any keyword arguments of torch.optim's class
// of that name.
struct OptimizerOptions {
  std::string kind;
  OptionMap given;
};

// torch.optim.SGD. Defaults: no momentum, dampening or weight decay.
class SGDOptions : public OptimizerOptions {
 public:
  explicit SGDOptions(double lr = 1e-3) : OptimizerOptions{"SGD", {{"lr", lr}}} {}

  SGDOptions& momentum(double value) { return Set("momentum", value); }
  // Factor 1 - dampening on the gradient, from the second step with momentum on.
  SGDOptions& dampening(double value) { return Set("dampening", value); }
  // Coupled: the gradient becomes gradient + weight_decay * parameter.
  SGDOptions& weight_decay(double value) { return Set("weight_decay", value); }
  SGDOptions& nesterov(bool value) { return Set("nesterov", value); }
  // Ascends: the gradient is negated before anything else.
  SGDOptions& maximize(bool value) { return Set("maximize", value); }

 private:
  SGDOptions& Set(absl::string_view name, const OptionValue& value) {
    given.Set(name, value);
    return *this;
  }
};

namespace internal {

// What Adam and AdamW share.
template <typename Derived>
class AdamFamilyOptions : public OptimizerOptions {
 public:
  // Default (0.9, 0.999).
  Derived& betas(double beta1, double beta2) {
    return Set("betas", OptionValue::List{beta1, beta2});
  }
  Derived& betas(const std::pair<double, double>& value) {
    return betas(value.first, value.second);
  }
  // Default 1e-8.
  Derived& eps(double value) { return Set("eps", value); }
  Derived& weight_decay(double value) { return Set("weight_decay", value); }
  Derived& amsgrad(bool value) { return Set("amsgrad", value); }
  // Ascends: the gradient is negated before anything else.
  Derived& maximize(bool value) { return Set("maximize", value); }

 protected:
  AdamFamilyOptions(const char* kind, double lr) : OptimizerOptions{kind, {{"lr", lr}}} {}

  Derived& Set(absl::string_view name, const OptionValue& value) {
    given.Set(name, value);
    return static_cast<Derived&>(*this);
  }
};

}  // namespace internal

// torch.optim.Adam. Default weight decay 0; it is coupled unless decoupled_weight_decay is set.
class AdamOptions : public internal::AdamFamilyOptions<AdamOptions> {
 public:
  explicit AdamOptions(double lr = 1e-3) : AdamFamilyOptions("Adam", lr) {}
  AdamOptions& decoupled_weight_decay(bool value) { return Set("decoupled_weight_decay", value); }
};

// torch.optim.AdamW. Default weight decay 0.01, always decoupled.
class AdamWOptions : public internal::AdamFamilyOptions<AdamWOptions> {
 public:
  explicit AdamWOptions(double lr = 1e-3) : AdamFamilyOptions("AdamW", lr) {}
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_OPTIONS_OPTIMIZER_OPTIONS_H_
