#include "shardstep/optim/options/option_checks.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "shardstep/optim/options/optimizer_kinds.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

absl::StatusOr<const OptimizerKind*> FindKind(absl::string_view name) {
  for (const OptimizerKind& kind : OptimizerKinds()) {
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
  for (const OptimizerKind& kind : OptimizerKinds()) names.push_back(kind.name);
  return names;
}

absl::Status UnknownOptimizer(absl::string_view kind) {
  if (kind == "LBFGS") {
    return absl::InvalidArgumentError(
        "optimizer \"LBFGS\": not on servers: its step calls a closure, which evaluates the model "
        "several times, and servers do not have the model");
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown optimizer \"", kind,
                                                 "\": expected one of ",
                                                 absl::StrJoin(KnownOptimizers(), ", ")));
}

absl::StatusOr<OptionMap> CompleteOptions(absl::string_view kind_name, const OptionMap& given) {
  SHARDSTEP_ASSIGN_OR_RETURN(const OptimizerKind* kind, FindKind(kind_name));
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
  SHARDSTEP_ASSIGN_OR_RETURN(const OptimizerKind* kind, FindKind(kind_name));
  for (const OptionMap::Entry& entry : kind->defaults) {
    if (full.Find(entry.first) != nullptr) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "parameter group didn't specify a value of required optimization parameter ", entry.first));
  }
  if (full.Find("params") != nullptr) {
    return absl::InvalidArgumentError(
        "option \"params\": the name is taken by the group's list of parameters");
  }
  return kind->check(full);
}

absl::Status CheckSizes(absl::string_view kind, absl::string_view parameter, const Shape& sizes) {
  if (kind == "Muon" && sizes.size() != 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Muon only supports 2D parameters whereas we found a parameter with size: torch.Size([",
        absl::StrJoin(sizes, ", "), "])"));
  }
  if (kind == "RowWiseAdagrad" && sizes.size() < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("RowWiseAdagrad needs rows: parameter \"", parameter,
                     "\": expected at least 2 dimensions, got ", sizes.size()));
  }
  return absl::OkStatus();
}

}  // namespace shardstep
