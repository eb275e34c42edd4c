#include "shardstep/optim/options/option_checks.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

struct Kind {
  std::string name;
  OptionMap defaults;
  // Stands among the options but is no argument of the constructor.
  std::string fixed;
  absl::Status (*check)(const OptionMap& full);
};

absl::StatusOr<const OptionValue*> Require(const OptionMap& options, absl::string_view name) {
  const OptionValue* value = options.Find(name);
  if (value != nullptr) return value;
  return absl::InvalidArgumentError(absl::StrCat(
      "parameter group didn't specify a value of required optimization parameter ", name));
}

absl::Status CheckIsNumber(const OptionMap& options, absl::string_view name) {
  SHARDSTEP_ASSIGN_OR_RETURN(const OptionValue* value, Require(options, name));
  if (value->AsNumber().has_value()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("option \"", name, "\": expected a number, got ", value->ToString()));
}

absl::Status Invalid(absl::string_view what, const OptionValue& value) {
  return absl::InvalidArgumentError(absl::StrCat("Invalid ", what, ": ", value.ToString()));
}

absl::Status CheckSgd(const OptionMap& full) {
  for (const absl::string_view name : {"lr", "momentum", "dampening", "weight_decay"}) {
    SHARDSTEP_RETURN_IF_ERROR(CheckIsNumber(full, name));
  }
  // "v < 0", not "!(v >= 0)": NaN passes, as in PyTorch.
  if (full.Number("lr") < 0) return Invalid("learning rate", *full.Find("lr"));
  if (full.Number("momentum") < 0) return Invalid("momentum value", *full.Find("momentum"));
  if (full.Number("weight_decay") < 0) {
    return Invalid("weight_decay value", *full.Find("weight_decay"));
  }
  if (full.IsTrue("nesterov") && (full.Number("momentum") <= 0 || full.Number("dampening") != 0)) {
    return absl::InvalidArgumentError("Nesterov momentum requires a momentum and zero dampening");
  }
  return absl::OkStatus();
}

absl::Status CheckBetas(const OptionValue::List& betas) {
  for (size_t i = 0; i < betas.size(); ++i) {
    const double beta = *betas[i].AsNumber();
    if (!(0 <= beta && beta < 1)) {
      return Invalid(absl::StrCat("beta parameter at index ", i), betas[i]);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckAdam(const OptionMap& full) {
  for (const absl::string_view name : {"lr", "eps", "weight_decay"}) {
    SHARDSTEP_RETURN_IF_ERROR(CheckIsNumber(full, name));
  }
  SHARDSTEP_ASSIGN_OR_RETURN(const OptionValue* betas_value, Require(full, "betas"));
  const auto* betas = std::get_if<OptionValue::List>(&betas_value->value());
  if (betas == nullptr || betas->size() != 2 || !(*betas)[0].AsNumber() ||
      !(*betas)[1].AsNumber()) {
    return absl::InvalidArgumentError(
        absl::StrCat("option \"betas\": expected two numbers, got ", betas_value->ToString()));
  }
  if (!(0 <= full.Number("lr"))) return Invalid("learning rate", *full.Find("lr"));
  if (!(0 <= full.Number("eps"))) return Invalid("epsilon value", *full.Find("eps"));
  SHARDSTEP_RETURN_IF_ERROR(CheckBetas(*betas));
  if (!(0 <= full.Number("weight_decay"))) {
    return Invalid("weight_decay value", *full.Find("weight_decay"));
  }
  if (!std::holds_alternative<double>((*betas)[0].value()) ||
      !std::holds_alternative<double>((*betas)[1].value())) {
    return absl::InvalidArgumentError("betas must be either both floats or both Tensors");
  }
  return absl::OkStatus();
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

std::vector<Kind> MakeKinds() {
  OptionMap sgd = {{"lr", 1e-3},
                   {"momentum", 0},
                   {"dampening", 0},
                   {"weight_decay", 0},
                   {"nesterov", false},
                   {"maximize", false},
                   {"foreach", OptionValue()},
                   {"differentiable", false},
                   {"fused", OptionValue()}};
  return {{"SGD", std::move(sgd), "", CheckSgd},
          {"Adam", AdamDefaults(0, false), "", CheckAdam},
          {"AdamW", AdamDefaults(1e-2, true), "decoupled_weight_decay", CheckAdam}};
}

const std::vector<Kind>& Kinds() {
  static const auto* kinds = new std::vector<Kind>(MakeKinds());
  return *kinds;
}

absl::StatusOr<const Kind*> FindKind(absl::string_view name) {
  for (const Kind& kind : Kinds()) {
    if (kind.name == name) return &kind;
  }
  return UnknownOptimizer(name);
}

// PyTorch checks these two in the constructor alone, after all else.
absl::Status CheckFused(const OptionMap& full) {
  if (!full.IsTrue("fused")) return absl::OkStatus();
  if (full.IsTrue("differentiable")) {
    return absl::InvalidArgumentError("`fused` does not support `differentiable`");
  }
  if (full.IsTrue("foreach")) {
    return absl::InvalidArgumentError("`fused` and `foreach` cannot be `True` together.");
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string> KnownOptimizers() {
  std::vector<std::string> names;
  for (const Kind& kind : Kinds()) names.push_back(kind.name);
  return names;
}

absl::Status UnknownOptimizer(absl::string_view kind) {
  return absl::InvalidArgumentError(absl::StrCat("unknown optimizer \"", kind,
                                                 "\": expected one of ",
                                                 absl::StrJoin(KnownOptimizers(), ", ")));
}

absl::StatusOr<OptionMap> CompleteOptions(absl::string_view kind_name, const OptionMap& given) {
  SHARDSTEP_ASSIGN_OR_RETURN(const Kind* kind, FindKind(kind_name));
  OptionMap full = kind->defaults;
  for (const OptionMap::Entry& entry : given) {
    if (full.Find(entry.first) == nullptr || entry.first == kind->fixed) {
      return absl::InvalidArgumentError(absl::StrCat(
          kind->name, ".__init__() got an unexpected keyword argument '", entry.first, "'"));
    }
    full.Set(entry.first, entry.second);
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckOptions(kind_name, full));
  SHARDSTEP_RETURN_IF_ERROR(CheckFused(full));
  return full;
}

absl::Status CheckOptions(absl::string_view kind_name, const OptionMap& full) {
  SHARDSTEP_ASSIGN_OR_RETURN(const Kind* kind, FindKind(kind_name));
  for (const OptionMap::Entry& entry : kind->defaults) {
    SHARDSTEP_RETURN_IF_ERROR(Require(full, entry.first).status());
  }
  if (full.Find("params") != nullptr) {
    return absl::InvalidArgumentError(
        "option \"params\": the name is taken by the group's list of parameters");
  }
  return kind->check(full);
}

}  // namespace shardstep
