#include <memory>
#include <type_traits>
#include <variant>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "shardstep/client/cli/table.h"
#include "shardstep/client/cli/verbs.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

struct Flags : FleetFlags {
  std::string name;
};

Json ToJson(const OptionValue& value) {
  return std::visit(
      [](const auto& held) -> Json {
        using Held = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<Held, std::monostate>) {
          return nullptr;
        } else if constexpr (std::is_same_v<Held, OptionValue::List>) {
          Json list = Json::array();
          for (const OptionValue& element : held) list.push_back(ToJson(element));
          return list;
        } else {
          return held;
        }
      },
      value.value());
}

Json ToJson(const ParamGroup& group) {
  Json options = Json::object();
  for (const auto& [name, value] : group.options) options[name] = ToJson(value);
  return {{"options", options}, {"params", group.params}};
}

Json ToJson(const OptimizerDetails& details) {
  const OptimizerDescription& description = details.description;
  Json parameters = Json::array();
  for (const ParameterShape& parameter : description.definition.parameters) {
    parameters.push_back({{"name", parameter.name},
                          {"dtype", std::string(DTypeName(parameter.dtype))},
                          {"shape", parameter.sizes},
                          {"shards", Json::array()}});
  }
  for (const PlannedShard& shard : description.plan.shards) {
    parameters.at(static_cast<size_t>(shard.parameter))["shards"].push_back(
        {{"offsets", shard.metadata.offsets},
         {"sizes", shard.metadata.sizes},
         {"placement", ToString(shard.metadata.placement)}});
  }
  Json groups = Json::array();
  for (const ParamGroup& group : description.groups) groups.push_back(ToJson(group));
  Json states = Json::array();
  for (const StateSpec& state : description.states) states.push_back(state.name);
  return {{"name", description.definition.name},
          {"kind", description.definition.kind},
          {"mode", ToString(description.definition.mode)},
          {"version", details.version},
          {"durable_version", details.durable_version},
          {"lineage", details.lineage},
          {"plan_id", description.plan.plan_id},
          {"state", states},
          {"param_groups", groups},
          {"parameters", parameters}};
}

// Where a parameter lies, each placement once: "rank:0/cpu, rank:2/cpu".
struct Whereabouts {
  uint64_t shards = 0;
  std::vector<std::string> placements;
};

std::vector<Whereabouts> WhereaboutsOf(const OptimizerDescription& description) {
  std::vector<Whereabouts> all(description.definition.parameters.size());
  for (const PlannedShard& shard : description.plan.shards) {
    Whereabouts& parameter = all.at(static_cast<size_t>(shard.parameter));
    ++parameter.shards;
    const std::string placement = ToString(shard.metadata.placement);
    if (absl::c_linear_search(parameter.placements, placement)) continue;
    parameter.placements.push_back(placement);
  }
  return all;
}

void PrintForPeople(const OptimizerDetails& details, std::ostream& out) {
  const OptimizerDescription& description = details.description;
  const OptimizerDefinition& definition = description.definition;
  out << "optimizer \"" << definition.name << "\": " << definition.kind << ", "
      << ToString(definition.mode) << ", version " << details.version << " (durable "
      << details.durable_version << "), lineage " << details.lineage << ", plan "
      << description.plan.plan_id << "\n";
  for (size_t i = 0; i < description.groups.size(); ++i) {
    out << "group " << i << " (" << description.groups[i].params.size() << " parameters):";
    for (const auto& [name, value] : description.groups[i].options)
      out << " " << name << "=" << value.ToString();
    out << "\n";
  }
  const std::vector<Whereabouts> whereabouts = WhereaboutsOf(description);
  Table table({"parameter", "dtype", "shape", ">shards", "placements"});
  for (size_t i = 0; i < whereabouts.size(); ++i) {
    const ParameterShape& parameter = definition.parameters[i];
    table.AddRow({parameter.name, std::string(DTypeName(parameter.dtype)),
                  ShapeToString(parameter.sizes), absl::StrCat(whereabouts[i].shards),
                  absl::StrJoin(whereabouts[i].placements, ", ")});
  }
  out << table.ToString();
}

absl::Status Run(const Flags& flags, std::ostream& out, std::ostream& /*err*/) {
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, ConnectToFleet(flags));
  SHARDSTEP_ASSIGN_OR_RETURN(const OptimizerDetails details, client.Describe(flags.name));
  if (flags.json) {
    Print(out, ToJson(details));
  } else {
    PrintForPeople(details, out);
  }
  return absl::OkStatus();
}

}  // namespace

void AddDescribe(CLI::App* app, Context* context) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* const verb = AddVerb(
      app, "describe",
      "Shows one optimizer: its groups with their options, its parameters and where they lie.",
      context, flags, Run);
  verb->add_option("name", flags->name, "The optimizer")->required();
  AddFleetFlags(verb, flags.get());
}

}  // namespace shardstep
