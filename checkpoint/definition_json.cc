#include "shardstep/checkpoint/definition_json.h"

#include <string>
#include <utility>
#include <variant>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/json_fields.h"
#include "shardstep/checkpoint/option_json.h"
#include "shardstep/checkpoint/sharding_json.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/sharding/extent.h"
#include "shardstep/sharding/parameter_name.h"
#include "shardstep/sharding/plan.h"
#include "shardstep/sharding/sharding_spec.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

std::string Named(absl::string_view what, absl::string_view name) {
  return absl::StrCat(what, " \"", absl::CHexEscape(name.substr(0, kMaxNameBytes)), "\"");
}

Json ModeToJson(const Mode& mode) {
  if (const auto* synchronous = std::get_if<Synchronous>(&mode)) {
    return Json{{"trainers", synchronous->trainers}};
  }
  return Json{{"max_staleness", std::get<Asynchronous>(mode).max_staleness}};
}

absl::StatusOr<Mode> ModeFromJson(const Json& json) {
  SHARDSTEP_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, "mode"));
  if (fields.Find("trainers") == nullptr) {
    SHARDSTEP_ASSIGN_OR_RETURN(const uint64_t max_staleness, fields.Unsigned("max_staleness"));
    return Asynchronous(max_staleness);
  }
  SHARDSTEP_ASSIGN_OR_RETURN(const uint64_t trainers, fields.Unsigned("trainers", kMaxTrainers));
  if (trainers == 0) return fields.Error("trainers", "is 0, expected at least 1");
  return Synchronous(static_cast<int>(trainers));
}

absl::StatusOr<OptionMap> DefaultsFromJson(const std::string& kind, const Json& json) {
  SHARDSTEP_ASSIGN_OR_RETURN(OptionMap defaults, OptionMapFromJson(json));
  SHARDSTEP_ASSIGN_OR_RETURN(const OptionMap full, CompleteOptions(kind, {}));
  for (const auto& [name, value] : full) {
    if (defaults.Find(name) == nullptr) defaults.Set(name, value);
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckOptions(kind, defaults));
  return defaults;
}

absl::StatusOr<std::vector<ParamGroup>> CompleteGroupsFromJson(
    const Json& json, const OptimizerDefinition& definition) {
  SHARDSTEP_ASSIGN_OR_RETURN(std::vector<ParamGroup> groups, GroupsFromJson(json));
  absl::flat_hash_set<absl::string_view> names;
  for (const ParameterShape& parameter : definition.parameters) names.insert(parameter.name);
  for (size_t i = 0; i < groups.size(); ++i) {
    const std::string which = absl::StrCat("group ", i);
    for (const std::string& name : groups[i].params) {
      if (names.contains(name)) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(which, ": ", Named("parameter", name), ": not among the parameters"));
    }
    absl::StatusOr<ParamGroup> complete =
        CompleteGroup(definition.kind, definition.defaults, groups[i]);
    if (!complete.ok()) return AtPlace(which, complete.status());
    groups[i] = *std::move(complete);
  }
  return groups;
}

absl::StatusOr<ParameterShape> ParameterFromJson(const JsonFields& fields) {
  ParameterShape parameter;
  SHARDSTEP_ASSIGN_OR_RETURN(parameter.name, fields.String("name"));
  SHARDSTEP_RETURN_IF_ERROR(ValidateName(parameter.name));
  const auto parse = [&]() -> absl::Status {
    SHARDSTEP_ASSIGN_OR_RETURN(const std::string dtype, fields.String("dtype"));
    SHARDSTEP_ASSIGN_OR_RETURN(parameter.dtype, ParseDType(dtype));
    SHARDSTEP_ASSIGN_OR_RETURN(parameter.sizes, fields.Sizes("shape"));
    SHARDSTEP_RETURN_IF_ERROR(NumBytes(parameter.sizes, parameter.dtype).status());
    if (const Json* spec = fields.Find("spec")) {
      SHARDSTEP_ASSIGN_OR_RETURN(parameter.spec, SpecFromJson(*spec));
      SHARDSTEP_RETURN_IF_ERROR(MakeShards(*parameter.spec, parameter.sizes).status());
    }
    return absl::OkStatus();
  };
  const absl::Status parsed = parse();
  if (!parsed.ok()) return AtPlace(Named("parameter", parameter.name), parsed);
  return parameter;
}

absl::Status ParametersFromJson(const Json& json, OptimizerDefinition* definition) {
  absl::flat_hash_set<std::string> names;
  for (const Json& entry : json) {
    SHARDSTEP_ASSIGN_OR_RETURN(
        const JsonFields fields,
        JsonFields::Of(entry, absl::StrCat("parameter ", definition->parameters.size())));
    SHARDSTEP_ASSIGN_OR_RETURN(ParameterShape parameter, ParameterFromJson(fields));
    if (!names.insert(parameter.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(Named("parameter", parameter.name), ": name appears twice"));
    }
    SHARDSTEP_ASSIGN_OR_RETURN(const bool sharded, fields.Bool("sharded"));
    definition->parameters.push_back(std::move(parameter));
    definition->sharded.push_back(sharded);
  }
  return absl::OkStatus();
}

}  // namespace

Json DefinitionToJson(const OptimizerDefinition& definition) {
  Json parameters = Json::array();
  for (size_t i = 0; i < definition.parameters.size(); ++i) {
    const ParameterShape& parameter = definition.parameters[i];
    Json entry = {{"name", parameter.name},
                  {"dtype", std::string(DTypeName(parameter.dtype))},
                  {"shape", parameter.sizes},
                  {"sharded", i < definition.sharded.size() && definition.sharded[i]}};
    if (parameter.spec.has_value()) AddMember(&entry, "spec", SpecToJson(*parameter.spec));
    parameters.push_back(std::move(entry));
  }
  return Json{{"name", definition.name},
              {"kind", definition.kind},
              {"defaults", OptionMapToJson(definition.defaults)},
              {"mode", ModeToJson(definition.mode)},
              {"groups", GroupsToJson(definition.groups)},
              {"parameters", std::move(parameters)}};
}

absl::StatusOr<OptimizerDefinition> DefinitionFromJson(const Json& json) {
  SHARDSTEP_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, "definition"));
  const auto member = [&](const char* name) {
    static const Json* const none = new Json();
    const Json* found = fields.Find(name);
    return found == nullptr ? none : found;
  };
  OptimizerDefinition definition;
  SHARDSTEP_ASSIGN_OR_RETURN(definition.name, fields.String("name"));
  SHARDSTEP_RETURN_IF_ERROR(ValidateOptimizerName(definition.name));
  SHARDSTEP_ASSIGN_OR_RETURN(definition.kind, fields.String("kind"));
  absl::StatusOr<OptionMap> defaults = DefaultsFromJson(definition.kind, *member("defaults"));
  if (!defaults.ok()) return AtPlace("definition: defaults", defaults.status());
  definition.defaults = *std::move(defaults);
  SHARDSTEP_ASSIGN_OR_RETURN(definition.mode, ModeFromJson(*member("mode")));
  SHARDSTEP_ASSIGN_OR_RETURN(const Json* parameters, fields.List("parameters", kMaxParameters));
  SHARDSTEP_RETURN_IF_ERROR(ParametersFromJson(*parameters, &definition));
  absl::StatusOr<std::vector<ParamGroup>> groups =
      CompleteGroupsFromJson(*member("groups"), definition);
  if (!groups.ok()) return AtPlace("definition", groups.status());
  definition.groups = *std::move(groups);
  return definition;
}

absl::StatusOr<std::vector<ParamGroup>> CurrentGroupsFromJson(
    const Json& json, const OptimizerDefinition& definition) {
  SHARDSTEP_ASSIGN_OR_RETURN(std::vector<ParamGroup> groups,
                             CompleteGroupsFromJson(json, definition));
  // They are names of parameters, none of them twice.
  size_t grouped = 0;
  for (const ParamGroup& group : groups) grouped += group.params.size();
  if (grouped == definition.parameters.size()) return groups;
  return absl::InvalidArgumentError(
      absl::StrCat(definition.parameters.size(), " parameters, ", grouped, " of them in groups"));
}

Json StatesToJson(const std::vector<StateSpec>& states) {
  Json json = Json::array();
  for (const StateSpec& state : states) {
    Json entry = {{"name", state.name}};
    if (state.kind == StateSpec::Kind::kScalar) {
      AddMember(&entry, "dtype", std::string(DTypeName(state.dtype)));
    } else if (state.extent != Extent::kElement) {
      AddMember(&entry, "extent", std::string(ExtentName(state.extent)));
    }
    json.push_back(std::move(entry));
  }
  return json;
}

absl::StatusOr<std::vector<StateSpec>> StatesFromJson(const Json& json) {
  if (!json.is_array()) return absl::InvalidArgumentError("states: not a list");
  std::vector<StateSpec> states;
  absl::flat_hash_set<std::string> names;
  for (const Json& entry : json) {
    SHARDSTEP_ASSIGN_OR_RETURN(const JsonFields fields,
                               JsonFields::Of(entry, absl::StrCat("state ", states.size())));
    StateSpec& state = states.emplace_back();
    SHARDSTEP_ASSIGN_OR_RETURN(state.name, fields.String("name"));
    SHARDSTEP_RETURN_IF_ERROR(AtPlace(fields.where(), ValidateName(state.name)));
    if (absl::StrContains(state.name, '.') || !names.insert(state.name).second) {
      return fields.Error("name", "holds a dot, or stands twice");
    }
    if (fields.Find("extent") != nullptr) {
      SHARDSTEP_ASSIGN_OR_RETURN(const std::string extent, fields.String("extent"));
      absl::StatusOr<Extent> parsed = ParseExtent(extent);
      if (!parsed.ok()) return AtPlace(fields.where(), parsed.status());
      state.extent = *parsed;
    }
    if (fields.Find("dtype") == nullptr) continue;
    state.kind = StateSpec::Kind::kScalar;
    SHARDSTEP_ASSIGN_OR_RETURN(const std::string dtype, fields.String("dtype"));
    absl::StatusOr<DType> parsed = ParseDType(dtype);
    if (!parsed.ok()) return AtPlace(fields.where(), parsed.status());
    state.dtype = *parsed;
  }
  return states;
}

}  // namespace shardstep
