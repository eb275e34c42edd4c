#include "shardstep/server/optimizer_plan.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/options/coupling.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

PlannerOptions OptionsFor(const Coupling& coupling) {
  PlannerOptions options;
  options.whole_rows = coupling.cut == Coupling::Cut::kBetweenRows;
  if (coupling.cut == Coupling::Cut::kNowhere) {
    options.whole_below_bytes = std::numeric_limits<int64_t>::max();
  }
  return options;
}

// Whether the shard is all there is along every dimension from `first` on.
bool IsWhole(const Region& shard, const Shape& sizes, size_t first) {
  for (size_t i = first; i < sizes.size(); ++i) {
    if (shard.offsets[i] != 0 || shard.sizes[i] != sizes[i]) return false;
  }
  return true;
}

absl::Status CheckCuts(absl::string_view kind, const Coupling& coupling, const Plan& plan,
                       absl::Span<const ParameterShape> parameters, size_t first_new) {
  for (size_t i = first_new; i < parameters.size(); ++i) {
    SHARDSTEP_RETURN_IF_ERROR(CheckSizes(kind, parameters[i].name, parameters[i].sizes));
  }
  if (coupling.cut == Coupling::Cut::kAnywhere) return absl::OkStatus();
  for (const PlannedShard& shard : plan.shards) {
    const Region region = RegionOf(shard.metadata);
    if (static_cast<size_t>(shard.parameter) < first_new || IsEmpty(region)) continue;
    const ParameterShape& parameter = parameters[shard.parameter];
    const bool rows = coupling.cut == Coupling::Cut::kBetweenRows;
    const size_t first = rows && !parameter.sizes.empty() ? parameter.sizes.size() - 1 : 0;
    if (IsWhole(region, parameter.sizes, first)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("parameter \"", parameter.name, "\": ", kind, " needs ",
                     rows ? "whole rows" : "the whole matrix", " on one server, got a shard of ",
                     ShapeToString(region.sizes), " at ", ShapeToString(region.offsets), " of ",
                     ShapeToString(parameter.sizes), "; leave the sharding spec away, or use ",
                     rows ? "one that cuts dimension 0" : "Whole"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Plan> MakeOptimizerPlan(absl::string_view kind,
                                       absl::Span<const ParameterShape> parameters,
                                       int num_servers) {
  const Coupling coupling = CouplingOf(kind);
  SHARDSTEP_ASSIGN_OR_RETURN(Plan plan, MakePlan(parameters, num_servers, OptionsFor(coupling)));
  SHARDSTEP_RETURN_IF_ERROR(CheckCuts(kind, coupling, plan, parameters, 0));
  return plan;
}

absl::Status AppendToOptimizerPlan(absl::string_view kind, Plan* plan,
                                   absl::Span<const ParameterShape> parameters, size_t first_new,
                                   int num_servers) {
  const Coupling coupling = CouplingOf(kind);
  Plan extended = *plan;
  SHARDSTEP_RETURN_IF_ERROR(
      AppendToPlan(&extended, parameters, first_new, num_servers, OptionsFor(coupling)));
  SHARDSTEP_RETURN_IF_ERROR(CheckCuts(kind, coupling, extended, parameters, first_new));
  *plan = std::move(extended);
  return absl::OkStatus();
}

}  // namespace shardstep
