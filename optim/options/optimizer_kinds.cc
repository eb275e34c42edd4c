#include "shardstep/optim/options/optimizer_kinds.h"

#include <initializer_list>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

absl::Status CheckAreNumbers(const OptionMap& full,
                             std::initializer_list<absl::string_view> names) {
  for (const absl::string_view name : names) {
    const OptionValue& value = *full.Find(name);
    if (value.AsNumber().has_value()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("option \"", name, "\": expected a number, got ", value.ToString()));
  }
  return absl::OkStatus();
}

absl::Status CheckArePairs(const OptionMap& full, std::initializer_list<absl::string_view> names) {
  for (const absl::string_view name : names) {
    const OptionValue& value = *full.Find(name);
    const auto* list = std::get_if<OptionValue::List>(&value.value());
    if (list != nullptr && list->size() == 2 && (*list)[0].AsNumber() && (*list)[1].AsNumber()) {
      continue;
    }
    return absl::InvalidArgumentError(
        absl::StrCat("option \"", name, "\": expected two numbers, got ", value.ToString()));
  }
  return absl::OkStatus();
}

const OptionValue::List& ListOf(const OptionMap& full, absl::string_view name) {
  return std::get<OptionValue::List>(full.Find(name)->value());
}

absl::Status Invalid(absl::string_view what, const OptionValue& value) {
  return absl::InvalidArgumentError(absl::StrCat("Invalid ", what, ": ", value.ToString()));
}

// An option that must not be negative, and how messages call it.
struct Named {
  absl::string_view name;
  absl::string_view what;
};
constexpr Named kLr = {"lr", "learning rate"};
constexpr Named kEps = {"eps", "epsilon value"};
constexpr Named kMomentum = {"momentum", "momentum value"};
constexpr Named kWeightDecay = {"weight_decay", "weight_decay value"};

// "!(0 <= v)", not "v < 0": NaN is refused, as in PyTorch.
absl::Status CheckAtLeastZero(const OptionMap& full, std::initializer_list<Named> options) {
  for (const auto& [name, what] : options) {
    if (!(0 <= full.Number(name))) return Invalid(what, *full.Find(name));
  }
  return absl::OkStatus();
}

absl::Status CheckBetas(const OptionMap& full) {
  const OptionValue::List& betas = ListOf(full, "betas");
  for (size_t i = 0; i < betas.size(); ++i) {
    const double beta = *betas[i].AsNumber();
    if (!(0 <= beta && beta < 1)) {
      return Invalid(absl::StrCat("beta parameter at index ", i), betas[i]);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSgd(const OptionMap& full) {
  SHARDSTEP_RETURN_IF_ERROR(CheckAreNumbers(full, {"lr", "momentum", "dampening", "weight_decay"}));
  // "v < 0", not "!(0 <= v)": NaN passes, as in PyTorch.
  for (const auto& [name, what] : {kLr, kMomentum, kWeightDecay}) {
    if (full.Number(name) < 0) return Invalid(what, *full.Find(name));
  }
  if (full.IsTrue("nesterov") && (full.Number("momentum") <= 0 || full.Number("dampening") != 0)) {
    return absl::InvalidArgumentError("Nesterov momentum requires a momentum and zero dampening");
  }
  return absl::OkStatus();
}

// What the family of Adam checks alike.
absl::Status CheckMoments(const OptionMap& full) {
  SHARDSTEP_RETURN_IF_ERROR(CheckAreNumbers(full, {"lr", "eps", "weight_decay"}));
  SHARDSTEP_RETURN_IF_ERROR(CheckArePairs(full, {"betas"}));
  SHARDSTEP_RETURN_IF_ERROR(CheckAtLeastZero(full, {kLr, kEps}));
  SHARDSTEP_RETURN_IF_ERROR(CheckBetas(full));
  return CheckAtLeastZero(full, {kWeightDecay});
}

absl::Status CheckAdam(const OptionMap& full) {
  SHARDSTEP_RETURN_IF_ERROR(CheckMoments(full));
  for (const OptionValue& beta : ListOf(full, "betas")) {
    if (std::holds_alternative<double>(beta.value())) continue;
    return absl::InvalidArgumentError("betas must be either both floats or both Tensors");
  }
  return absl::OkStatus();
}

absl::Status CheckNAdam(const OptionMap& full) {
  SHARDSTEP_RETURN_IF_ERROR(CheckAreNumbers(full, {"momentum_decay"}));
  SHARDSTEP_RETURN_IF_ERROR(CheckMoments(full));
  return CheckAtLeastZero(full, {{"momentum_decay", "momentum_decay value"}});
}

absl::Status CheckAdagrad(const OptionMap& full) {
  SHARDSTEP_RETURN_IF_ERROR(CheckAreNumbers(
      full, {"lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"}));
  return CheckAtLeastZero(full, {kLr,
                                 {"lr_decay", "lr_decay value"},
                                 kWeightDecay,
                                 {"initial_accumulator_value", "initial_accumulator_value value"},
                                 kEps});
}

absl::Status CheckRMSprop(const OptionMap& full) {
  SHARDSTEP_RETURN_IF_ERROR(
      CheckAreNumbers(full, {"lr", "momentum", "alpha", "eps", "weight_decay"}));
  return CheckAtLeastZero(full, {kLr, kEps, kMomentum, kWeightDecay, {"alpha", "alpha value"}});
}

absl::Status CheckAdadelta(const OptionMap& full) {
  SHARDSTEP_RETURN_IF_ERROR(CheckAreNumbers(full, {"lr", "rho", "eps", "weight_decay"}));
  SHARDSTEP_RETURN_IF_ERROR(CheckAtLeastZero(full, {kLr}));
  const double rho = full.Number("rho");
  if (!(0 <= rho && rho <= 1)) return Invalid("rho value", *full.Find("rho"));
  return CheckAtLeastZero(full, {kEps, kWeightDecay});
}

absl::Status CheckRprop(const OptionMap& full) {
  SHARDSTEP_RETURN_IF_ERROR(CheckAreNumbers(full, {"lr"}));
  SHARDSTEP_RETURN_IF_ERROR(CheckArePairs(full, {"etas", "step_sizes"}));
  SHARDSTEP_RETURN_IF_ERROR(CheckAtLeastZero(full, {kLr}));
  const OptionValue::List& etas = ListOf(full, "etas");
  const double minus = *etas[0].AsNumber();
  const double plus = *etas[1].AsNumber();
  if (0 < minus && minus < 1 && 1 < plus) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("Invalid eta values: ", etas[0].ToString(), ", ", etas[1].ToString()));
}

absl::Status CheckASGD(const OptionMap& full) {
  SHARDSTEP_RETURN_IF_ERROR(CheckAreNumbers(full, {"lr", "lambd", "alpha", "t0", "weight_decay"}));
  return CheckAtLeastZero(full, {kLr, kWeightDecay});
}

// Adafactor and Muon have words of their own: "momentum should be >= 0 but is: -0.5".
absl::Status ShouldBe(absl::string_view what, absl::string_view bound, const OptionValue& value) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " should be ", bound, " but is: ", value.ToString()));
}

absl::Status CheckAdafactor(const OptionMap& full) {
  SHARDSTEP_RETURN_IF_ERROR(CheckAreNumbers(full, {"lr", "beta2_decay", "d", "weight_decay"}));
  const OptionValue& eps = *full.Find("eps");
  const auto* list = std::get_if<OptionValue::List>(&eps.value());
  const bool is_pair = list != nullptr && list->size() == 2 && (*list)[1].AsNumber();
  if (!is_pair || (!(*list)[0].AsNumber() && (*list)[0] != OptionValue())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "option \"eps\": expected None or a number, and a number, got ", eps.ToString()));
  }
  const auto number = [&full](absl::string_view name) { return full.Number(name); };
  if (!(0 <= number("lr"))) return ShouldBe("Learning rate", ">= 0", *full.Find("lr"));
  if (!(0 >= number("beta2_decay"))) {
    return ShouldBe("beta2_decay", "<= 0", *full.Find("beta2_decay"));
  }
  for (size_t i = 0; i < 2; ++i) {
    const std::optional<double> value = (*list)[i].AsNumber();
    if (value && !(0 <= *value))
      return ShouldBe(absl::StrCat("epsilon", i + 1), ">= 0", (*list)[i]);
  }
  if (!(1 <= number("d"))) return ShouldBe("Clipping threshold d", ">= 1", *full.Find("d"));
  if (0 <= number("weight_decay")) return absl::OkStatus();
  return ShouldBe("weight_decay", ">= 0", *full.Find("weight_decay"));
}

// PyTorch looks at ns_coefficients and ns_steps in a step, which here must not fail any more.
absl::Status CheckNewtonSchulz(const OptionMap& full) {
  const auto* list = std::get_if<OptionValue::List>(&full.Find("ns_coefficients")->value());
  if (list == nullptr || list->size() != 3) {
    return absl::InvalidArgumentError("Coefficients must be a tuple of exactly 3 values");
  }
  for (const OptionValue& coefficient : *list) {
    if (coefficient.AsNumber()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("option \"ns_coefficients\": expected numbers, got ", coefficient.ToString()));
  }
  const OptionValue& steps = *full.Find("ns_steps");
  if (steps.AsNumber().value_or(0) >= 100) {
    return absl::InvalidArgumentError(
        "Number of steps must be less than 100 for computational efficiency");
  }
  if (std::holds_alternative<int64_t>(steps.value()) ||
      std::holds_alternative<bool>(steps.value())) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("option \"ns_steps\": expected an integer, got ", steps.ToString()));
}

absl::Status CheckMuon(const OptionMap& full) {
  SHARDSTEP_RETURN_IF_ERROR(CheckAreNumbers(full, {"lr", "weight_decay", "momentum", "eps"}));
  if (!(0 <= full.Number("lr"))) return ShouldBe("Learning rate", ">= 0", *full.Find("lr"));
  if (!(0 <= full.Number("momentum"))) return ShouldBe("momentum", ">= 0", *full.Find("momentum"));
  if (!(0 <= full.Number("weight_decay"))) {
    return ShouldBe("weight decay", ">= 0", *full.Find("weight_decay"));
  }
  const OptionValue& adjust = *full.Find("adjust_lr_fn");
  if (adjust != OptionValue() && adjust != "original" && adjust != "match_rms_adamw") {
    const auto* name = std::get_if<std::string>(&adjust.value());
    return absl::InvalidArgumentError(absl::StrCat("Adjust learning rate function ",
                                                   name != nullptr ? *name : adjust.ToString(),
                                                   " is not supported"));
  }
  return CheckNewtonSchulz(full);
}

absl::Status CheckLars(const OptionMap& full) {
  SHARDSTEP_RETURN_IF_ERROR(CheckAreNumbers(full, {"trust_coefficient", "eps"}));
  SHARDSTEP_RETURN_IF_ERROR(CheckSgd(full));
  return CheckAtLeastZero(
      full, {kLr, kMomentum, kWeightDecay, {"trust_coefficient", "trust_coefficient value"}, kEps});
}

absl::Status CheckSparseAdam(const OptionMap& full) {
  SHARDSTEP_RETURN_IF_ERROR(CheckAreNumbers(full, {"lr", "eps"}));
  SHARDSTEP_RETURN_IF_ERROR(CheckArePairs(full, {"betas"}));
  // Unlike all others it refuses 0.
  for (const auto& [name, what] : {kLr, kEps}) {
    if (!(0 < full.Number(name))) return Invalid(what, *full.Find(name));
  }
  return CheckBetas(full);
}

OptionMap AdamDefaults(OptionValue weight_decay, bool decoupled) {
  return {{"lr", 1e-3},
          {"betas", OptionValue::List{0.9, 0.999}},
          {"eps", 1e-8},
          {"weight_decay", std::move(weight_decay)},
          {"amsgrad", false},
          {"maximize", false},
          {"foreach", OptionValue()},
          {"capturable", false},
          {"differentiable", false},
          {"fused", OptionValue()},
          {"decoupled_weight_decay", decoupled}};
}

std::vector<OptimizerKind> MakeKinds() {
  const OptionValue none;
  const OptionValue::List betas = {0.9, 0.999};
  const OptionMap sgd = {{"lr", 1e-3},        {"momentum", 0},           {"dampening", 0},
                         {"weight_decay", 0}, {"nesterov", false},       {"maximize", false},
                         {"foreach", none},   {"differentiable", false}, {"fused", none}};
  const OptionMap adagrad = {{"lr", 1e-2},
                             {"lr_decay", 0},
                             {"eps", 1e-10},
                             {"weight_decay", 0},
                             {"initial_accumulator_value", 0},
                             {"foreach", none},
                             {"maximize", false},
                             {"differentiable", false},
                             {"fused", none}};
  const OptionMap rmsprop = {
      {"lr", 1e-2},        {"momentum", 0},          {"alpha", 0.99},       {"eps", 1e-8},
      {"centered", false}, {"weight_decay", 0},      {"capturable", false}, {"foreach", none},
      {"maximize", false}, {"differentiable", false}};
  const OptionMap adadelta = {
      {"lr", 1.0},         {"rho", 0.9},          {"eps", 1e-6},     {"weight_decay", 0},
      {"maximize", false}, {"capturable", false}, {"foreach", none}, {"differentiable", false}};
  const OptionMap nadam = {{"lr", 2e-3},
                           {"betas", betas},
                           {"eps", 1e-8},
                           {"weight_decay", 0},
                           {"momentum_decay", 4e-3},
                           {"decoupled_weight_decay", false},
                           {"maximize", false},
                           {"foreach", none},
                           {"capturable", false},
                           {"differentiable", false}};
  const OptionMap radam = {{"lr", 1e-3},
                           {"betas", betas},
                           {"eps", 1e-8},
                           {"weight_decay", 0},
                           {"maximize", false},
                           {"foreach", none},
                           {"capturable", false},
                           {"decoupled_weight_decay", false},
                           {"differentiable", false}};
  const OptionMap adamax = {{"lr", 2e-3},
                            {"betas", betas},
                            {"eps", 1e-8},
                            {"weight_decay", 0},
                            {"foreach", none},
                            {"maximize", false},
                            {"differentiable", false},
                            {"capturable", false}};
  const OptionMap rprop = {{"lr", 1e-2},
                           {"etas", OptionValue::List{0.5, 1.2}},
                           {"step_sizes", OptionValue::List{1e-6, 50}},
                           {"foreach", none},
                           {"maximize", false},
                           {"differentiable", false},
                           {"capturable", false}};
  const OptionMap asgd = {{"lr", 1e-2},        {"lambd", 1e-4},           {"alpha", 0.75},
                          {"t0", 1e6},         {"weight_decay", 0},       {"foreach", none},
                          {"maximize", false}, {"differentiable", false}, {"capturable", false}};
  const OptionMap adafactor = {
      {"lr", 1e-2},       {"beta2_decay", -0.8}, {"eps", OptionValue::List{none, 1e-3}},
      {"d", 1.0},         {"weight_decay", 0.0}, {"foreach", none},
      {"maximize", false}};
  const OptionMap muon = {{"lr", 1e-3},
                          {"weight_decay", 0.1},
                          {"momentum", 0.95},
                          {"nesterov", true},
                          {"ns_coefficients", OptionValue::List{3.4445, -4.775, 2.0315}},
                          {"eps", 1e-7},
                          {"ns_steps", 5},
                          {"adjust_lr_fn", none}};
  // Not torch.optim's: see optim/lamb.h, lars.h and row_wise_adagrad.h.
  const OptionMap lamb = {{"lr", 1e-3},           {"betas", betas},        {"eps", 1e-6},
                          {"weight_decay", 1e-2}, {"always_adapt", false}, {"maximize", false}};
  const OptionMap lars = {{"lr", 1.0},         {"momentum", 0},         {"dampening", 0},
                          {"weight_decay", 0}, {"nesterov", false},     {"trust_coefficient", 1e-3},
                          {"eps", 1e-8},       {"always_adapt", false}, {"maximize", false}};
  const OptionMap row_wise_adagrad = {{"lr", 1e-2},
                                      {"lr_decay", 0.0},
                                      {"eps", 1e-10},
                                      {"weight_decay", 0.0},
                                      {"initial_accumulator_value", 0.0},
                                      {"maximize", false}};
  const OptionMap sparse_adam = {
      {"lr", 1e-3}, {"betas", betas}, {"eps", 1e-8}, {"maximize", false}};
  return {{"SGD", sgd, CheckSgd, ""},
          {"Adam", AdamDefaults(0, false), CheckAdam, ""},
          {"AdamW", AdamDefaults(1e-2, true), CheckAdam, "decoupled_weight_decay"},
          {"Adagrad", adagrad, CheckAdagrad, ""},
          {"RMSprop", rmsprop, CheckRMSprop, ""},
          {"Adadelta", adadelta, CheckAdadelta, ""},
          {"NAdam", nadam, CheckNAdam, ""},
          {"RAdam", radam, CheckMoments, ""},
          {"Adamax", adamax, CheckMoments, ""},
          {"Rprop", rprop, CheckRprop, ""},
          {"ASGD", asgd, CheckASGD, ""},
          {"Adafactor", adafactor, CheckAdafactor, ""},
          {"Muon", muon, CheckMuon, ""},
          {"LAMB", lamb, CheckMoments, ""},
          {"LARS", lars, CheckLars, ""},
          {"RowWiseAdagrad", row_wise_adagrad, CheckAdagrad, ""},
          {"SparseAdam", sparse_adam, CheckSparseAdam, ""}};
}

}  // namespace

const std::vector<OptimizerKind>& OptimizerKinds() {
  static const auto* kinds = new std::vector<OptimizerKind>(MakeKinds());
  return *kinds;
}

}  // namespace shardstep
