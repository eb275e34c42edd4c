// How a user names an optimizer and its options, in LibTorch's spelling:
//
//   shardstep::AdamWOptions(1e-3).weight_decay(0.01)
//   shardstep::OptimizerOptions{"SGD", {{"lr", 0.1}, {"momentum", 0.9}}}     // by name
//
// Plain data; nothing is checked here (CompleteOptions does, where the optimizer is made). What is
// not set keeps the default of PyTorch 2.11. Every number is dimensionless.
#ifndef SHARDSTEP_OPTIM_OPTIONS_OPTIMIZER_OPTIONS_H_
#define SHARDSTEP_OPTIM_OPTIONS_OPTIMIZER_OPTIONS_H_

#include <optional>
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

namespace internal {

// What every class but Muon has.
template <typename Derived>
class TypedOptions : public OptimizerOptions {
 public:
  // Ascends: the gradient is negated before anything else.
  Derived& maximize(bool value) { return Set("maximize", value); }

 protected:
  TypedOptions(const char* kind, double lr) : OptimizerOptions{kind, {{"lr", lr}}} {}

  Derived& Set(absl::string_view name, const OptionValue& value) {
    given.Set(name, value);
    return static_cast<Derived&>(*this);
  }
};

// What every class but Muon, Rprop and SparseAdam has.
template <typename Derived>
class DecayOptions : public TypedOptions<Derived> {
 public:
  // Coupled, unless the class says otherwise: the gradient becomes
  // gradient + weight_decay * parameter.
  Derived& weight_decay(double value) { return this->Set("weight_decay", value); }

 protected:
  using TypedOptions<Derived>::TypedOptions;
};

// What the family of Adam shares.
template <typename Derived>
class AdamFamilyOptions : public DecayOptions<Derived> {
 public:
  // Default (0.9, 0.999).
  Derived& betas(double beta1, double beta2) {
    return this->Set("betas", OptionValue::List{beta1, beta2});
  }
  Derived& betas(const std::pair<double, double>& value) {
    return betas(value.first, value.second);
  }
  // Default 1e-8.
  Derived& eps(double value) { return this->Set("eps", value); }

 protected:
  using DecayOptions<Derived>::DecayOptions;
};

}  // namespace internal

// torch.optim.SGD. Defaults: no momentum, dampening or weight decay.
class SGDOptions : public internal::DecayOptions<SGDOptions> {
 public:
  explicit SGDOptions(double lr = 1e-3) : DecayOptions("SGD", lr) {}
  SGDOptions& momentum(double value) { return Set("momentum", value); }
  // Factor 1 - dampening on the gradient, from the second step with momentum on.
  SGDOptions& dampening(double value) { return Set("dampening", value); }
  SGDOptions& nesterov(bool value) { return Set("nesterov", value); }
};

// torch.optim.Adam. Default weight decay 0; it is coupled unless decoupled_weight_decay is set.
class AdamOptions : public internal::AdamFamilyOptions<AdamOptions> {
 public:
  explicit AdamOptions(double lr = 1e-3) : AdamFamilyOptions("Adam", lr) {}
  AdamOptions& amsgrad(bool value) { return Set("amsgrad", value); }
  AdamOptions& decoupled_weight_decay(bool value) { return Set("decoupled_weight_decay", value); }
};

// torch.optim.AdamW. Default weight decay 0.01, always decoupled.
class AdamWOptions : public internal::AdamFamilyOptions<AdamWOptions> {
 public:
  explicit AdamWOptions(double lr = 1e-3) : AdamFamilyOptions("AdamW", lr) {}
  AdamWOptions& amsgrad(bool value) { return Set("amsgrad", value); }
};

// torch.optim.Adagrad.
class AdagradOptions : public internal::DecayOptions<AdagradOptions> {
 public:
  explicit AdagradOptions(double lr = 1e-2) : DecayOptions("Adagrad", lr) {}
  // Default 0: lr / (1 + (step - 1) * lr_decay).
  AdagradOptions& lr_decay(double value) { return Set("lr_decay", value); }
  // Default 0: what the sums of squares begin with.
  AdagradOptions& initial_accumulator_value(double value) {
    return Set("initial_accumulator_value", value);
  }
  // Default 1e-10.
  AdagradOptions& eps(double value) { return Set("eps", value); }
};

// torch.optim.RMSprop. Defaults: no momentum, not centered.
class RMSpropOptions : public internal::DecayOptions<RMSpropOptions> {
 public:
  explicit RMSpropOptions(double lr = 1e-2) : DecayOptions("RMSprop", lr) {}
  // Default 0.99.
  RMSpropOptions& alpha(double value) { return Set("alpha", value); }
  // Default 1e-8, added to the root.
  RMSpropOptions& eps(double value) { return Set("eps", value); }
  RMSpropOptions& momentum(double value) { return Set("momentum", value); }
  RMSpropOptions& centered(bool value) { return Set("centered", value); }
};

// torch.optim.Adadelta.
class AdadeltaOptions : public internal::DecayOptions<AdadeltaOptions> {
 public:
  explicit AdadeltaOptions(double lr = 1.0) : DecayOptions("Adadelta", lr) {}
  // Default 0.9.
  AdadeltaOptions& rho(double value) { return Set("rho", value); }
  // Default 1e-6, added under the roots.
  AdadeltaOptions& eps(double value) { return Set("eps", value); }
};

// torch.optim.NAdam. Weight decay as Adam's.
class NAdamOptions : public internal::AdamFamilyOptions<NAdamOptions> {
 public:
  explicit NAdamOptions(double lr = 2e-3) : AdamFamilyOptions("NAdam", lr) {}
  // Default 0.004.
  NAdamOptions& momentum_decay(double value) { return Set("momentum_decay", value); }
  NAdamOptions& decoupled_weight_decay(bool value) { return Set("decoupled_weight_decay", value); }
};

// torch.optim.RAdam. Weight decay as Adam's.
class RAdamOptions : public internal::AdamFamilyOptions<RAdamOptions> {
 public:
  explicit RAdamOptions(double lr = 1e-3) : AdamFamilyOptions("RAdam", lr) {}
  RAdamOptions& decoupled_weight_decay(bool value) { return Set("decoupled_weight_decay", value); }
};

// torch.optim.Adamax.
class AdamaxOptions : public internal::AdamFamilyOptions<AdamaxOptions> {
 public:
  explicit AdamaxOptions(double lr = 2e-3) : AdamFamilyOptions("Adamax", lr) {}
};

// torch.optim.Rprop. `lr` is what the step sizes begin with.
class RpropOptions : public internal::TypedOptions<RpropOptions> {
 public:
  explicit RpropOptions(double lr = 1e-2) : TypedOptions("Rprop", lr) {}
  // Default (0.5, 1.2): factors on the step size where the gradient's sign changed, or stayed.
  RpropOptions& etas(double minus, double plus) {
    return Set("etas", OptionValue::List{minus, plus});
  }
  // Default (1e-6, 50): the smallest and the largest step.
  RpropOptions& step_sizes(double smallest, double largest) {
    return Set("step_sizes", OptionValue::List{smallest, largest});
  }
};

// torch.optim.ASGD.
class ASGDOptions : public internal::DecayOptions<ASGDOptions> {
 public:
  explicit ASGDOptions(double lr = 1e-2) : DecayOptions("ASGD", lr) {}
  // Default 1e-4: decay of the parameter, and of lr over the steps.
  ASGDOptions& lambd(double value) { return Set("lambd", value); }
  // Default 0.75: lr / (1 + lambd * lr * step)^alpha.
  ASGDOptions& alpha(double value) { return Set("alpha", value); }
  // Default 1e6: the step from which on the average is one.
  ASGDOptions& t0(double value) { return Set("t0", value); }
};

// torch.optim.Adafactor. Weight decay is decoupled.
class AdafactorOptions : public internal::DecayOptions<AdafactorOptions> {
 public:
  explicit AdafactorOptions(double lr = 1e-2) : DecayOptions("Adafactor", lr) {}
  // Default -0.8: in step t the moments' average takes in t^beta2_decay of the new ones.
  AdafactorOptions& beta2_decay(double value) { return Set("beta2_decay", value); }
  // Default (None, 1e-3): the smallest root of a second moment (None: the machine epsilon of the
  // group's first parameter), and the smallest root mean square of a parameter.
  AdafactorOptions& eps(std::optional<double> eps1, double eps2) {
    const OptionValue first = eps1.has_value() ? OptionValue(*eps1) : OptionValue();
    return Set("eps", OptionValue::List{first, eps2});
  }
  // Default 1: the largest root mean square of an update.
  AdafactorOptions& d(double value) { return Set("d", value); }
};

// torch.optim.Muon, for matrices alone. Default weight decay 0.1, decoupled.
class MuonOptions : public OptimizerOptions {
 public:
  explicit MuonOptions(double lr = 1e-3) : OptimizerOptions{"Muon", {{"lr", lr}}} {}
  MuonOptions& weight_decay(double value) { return Set("weight_decay", value); }
  // Default 0.95.
  MuonOptions& momentum(double value) { return Set("momentum", value); }
  // Default true.
  MuonOptions& nesterov(bool value) { return Set("nesterov", value); }
  // Default (3.4445, -4.775, 2.0315): of the Newton-Schulz polynomial.
  MuonOptions& ns_coefficients(double a, double b, double c) {
    return Set("ns_coefficients", OptionValue::List{a, b, c});
  }
  // Default 1e-7: the smallest norm to divide by.
  MuonOptions& eps(double value) { return Set("eps", value); }
  // Default 5.
  MuonOptions& ns_steps(int value) { return Set("ns_steps", value); }
  // "original" (also the default, None) or "match_rms_adamw".
  MuonOptions& adjust_lr_fn(const std::string& value) { return Set("adjust_lr_fn", value); }

 private:
  MuonOptions& Set(absl::string_view name, const OptionValue& value) {
    given.Set(name, value);
    return *this;
  }
};

// LAMB (optim/lamb.h). Defaults: eps 1e-6, weight decay 0.01, which enters the update that is
// scaled.
class LambOptions : public internal::AdamFamilyOptions<LambOptions> {
 public:
  explicit LambOptions(double lr = 1e-3) : AdamFamilyOptions("LAMB", lr) {}
  // Default false: without weight decay the update is not scaled.
  LambOptions& always_adapt(bool value) { return Set("always_adapt", value); }
};

// LARS (optim/lars.h). Defaults: no momentum, dampening or weight decay.
class LarsOptions : public internal::DecayOptions<LarsOptions> {
 public:
  explicit LarsOptions(double lr = 1.0) : DecayOptions("LARS", lr) {}
  LarsOptions& momentum(double value) { return Set("momentum", value); }
  LarsOptions& dampening(double value) { return Set("dampening", value); }
  LarsOptions& nesterov(bool value) { return Set("nesterov", value); }
  // Default 1e-3.
  LarsOptions& trust_coefficient(double value) { return Set("trust_coefficient", value); }
  // Default 1e-8, added to the norm that is divided by.
  LarsOptions& eps(double value) { return Set("eps", value); }
  // Default false: without weight decay the gradient is not scaled.
  LarsOptions& always_adapt(bool value) { return Set("always_adapt", value); }
};

// Row-wise Adagrad (optim/row_wise_adagrad.h), for parameters with rows.
class RowWiseAdagradOptions : public internal::DecayOptions<RowWiseAdagradOptions> {
 public:
  explicit RowWiseAdagradOptions(double lr = 1e-2) : DecayOptions("RowWiseAdagrad", lr) {}
  // Default 0: lr / (1 + (step - 1) * lr_decay).
  RowWiseAdagradOptions& lr_decay(double value) { return Set("lr_decay", value); }
  // Default 0: what the rows' sums begin with.
  RowWiseAdagradOptions& initial_accumulator_value(double value) {
    return Set("initial_accumulator_value", value);
  }
  // Default 1e-10.
  RowWiseAdagradOptions& eps(double value) { return Set("eps", value); }
};

// torch.optim.SparseAdam: takes gradients of rows only, and moves no others.
class SparseAdamOptions : public internal::TypedOptions<SparseAdamOptions> {
 public:
  explicit SparseAdamOptions(double lr = 1e-3) : TypedOptions("SparseAdam", lr) {}
  // Default (0.9, 0.999).
  SparseAdamOptions& betas(double beta1, double beta2) {
    return Set("betas", OptionValue::List{beta1, beta2});
  }
  // Default 1e-8, added to the root of the uncorrected moment.
  SparseAdamOptions& eps(double value) { return Set("eps", value); }
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_OPTIONS_OPTIMIZER_OPTIONS_H_
