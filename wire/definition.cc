#include "shardstep/wire/definition.h"

#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/sharding/extent.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

using google::protobuf::RepeatedPtrField;

absl::Status Annotate(absl::string_view what, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(what, ": ", status.message()));
}

// Names from a message may be long.
std::string Quote(absl::string_view name) {
  return absl::StrCat("\"", absl::CHexEscape(name.substr(0, 64)), "\"");
}

absl::StatusOr<OptionValue> OptionValueAtDepth(const v1::OptionValue& value, int depth) {
  switch (value.value_case()) {
    case v1::OptionValue::kNone:
      return OptionValue();
    case v1::OptionValue::kBoolValue:
      return OptionValue(value.bool_value());
    case v1::OptionValue::kIntValue:
      return OptionValue(int64_t{value.int_value()});
    case v1::OptionValue::kDoubleValue:
      return OptionValue(value.double_value());
    case v1::OptionValue::kStringValue:
      return OptionValue(value.string_value());
    case v1::OptionValue::kListValue: {
      if (depth == kMaxOptionDepth) {
        return absl::InvalidArgumentError(
            absl::StrCat("lists are nested more than ", kMaxOptionDepth, " deep"));
      }
      OptionValue::List list;
      for (const v1::OptionValue& element : value.list_value().values()) {
        SHARDSTEP_ASSIGN_OR_RETURN(OptionValue parsed, OptionValueAtDepth(element, depth + 1));
        list.push_back(std::move(parsed));
      }
      return OptionValue(std::move(list));
    }
    case v1::OptionValue::VALUE_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("value of no known kind");
}

// The constructor's options of `kind`, where a message lacks them with PyTorch's defaults.
absl::StatusOr<OptionMap> DefaultsFromProto(const std::string& kind,
                                            const RepeatedPtrField<v1::Option>& proto) {
  SHARDSTEP_ASSIGN_OR_RETURN(const OptionMap given, OptionMapFromProto(proto));
  SHARDSTEP_ASSIGN_OR_RETURN(OptionMap full, CompleteOptions(kind, {}));
  for (const auto& [name, value] : given) {
    // What the constructor does not take and yet a complete set has (AdamW's
    // decoupled_weight_decay) may stand here.
    if (full.Find(name) == nullptr) {
      SHARDSTEP_RETURN_IF_ERROR(CompleteOptions(kind, {{name, value}}).status());
    }
    full.Set(name, value);
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckOptions(kind, full));
  return full;
}

absl::StatusOr<ParameterShape> ParameterFromProto(const v1::Parameter& proto) {
  SHARDSTEP_RETURN_IF_ERROR(ValidateName(proto.name()));
  const auto parse = [&]() -> absl::StatusOr<ParameterShape> {
    ParameterShape parameter;
    parameter.name = proto.name();
    SHARDSTEP_ASSIGN_OR_RETURN(parameter.dtype, DTypeFromProto(proto.dtype()));
    parameter.sizes.assign(proto.sizes().begin(), proto.sizes().end());
    parameter.master = !proto.has_master() || proto.master();
    SHARDSTEP_RETURN_IF_ERROR(NumBytes(parameter.sizes, parameter.dtype).status());
    if (proto.has_spec()) {
      SHARDSTEP_ASSIGN_OR_RETURN(parameter.spec, ShardingSpecFromProto(proto.spec()));
    }
    return parameter;
  };
  absl::StatusOr<ParameterShape> parameter = parse();
  if (!parameter.ok()) {
    return Annotate(absl::StrCat("parameter \"", proto.name(), "\""), parameter.status());
  }
  return parameter;
}

absl::StatusOr<StateSpec> StateSpecFromProto(const v1::StateSpec& proto) {
  StateSpec state;
  state.name = proto.name();
  if (!v1::StateSpec::Extent_IsValid(proto.extent())) {
    return absl::InvalidArgumentError(
        absl::StrCat("state ", Quote(proto.name()), ": extent ", proto.extent(), " is unknown"));
  }
  state.extent = static_cast<Extent>(proto.extent());
  if (!proto.scalar()) return state;
  state.kind = StateSpec::Kind::kScalar;
  absl::StatusOr<DType> dtype = DTypeFromProto(proto.dtype());
  if (!dtype.ok()) return Annotate(absl::StrCat("state ", Quote(proto.name())), dtype.status());
  state.dtype = *dtype;
  return state;
}

}  // namespace

v1::OptionValue OptionValueToProto(const OptionValue& value) {
  v1::OptionValue proto;
  std::visit(
      [&](const auto& held) {
        using Held = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<Held, std::monostate>) {
          proto.set_none(true);
        } else if constexpr (std::is_same_v<Held, bool>) {
          proto.set_bool_value(held);
        } else if constexpr (std::is_same_v<Held, int64_t>) {
          proto.set_int_value(held);
        } else if constexpr (std::is_same_v<Held, double>) {
          proto.set_double_value(held);
        } else if constexpr (std::is_same_v<Held, std::string>) {
          proto.set_string_value(held);
        } else {
          v1::OptionList* list = proto.mutable_list_value();
          for (const OptionValue& element : held) *list->add_values() = OptionValueToProto(element);
        }
      },
      value.value());
  return proto;
}

absl::StatusOr<OptionValue> OptionValueFromProto(const v1::OptionValue& value) {
  return OptionValueAtDepth(value, 0);
}

RepeatedPtrField<v1::Option> OptionMapToProto(const OptionMap& options) {
  RepeatedPtrField<v1::Option> proto;
  for (const auto& [name, value] : options) {
    v1::Option* option = proto.Add();
    option->set_name(name);
    *option->mutable_value() = OptionValueToProto(value);
  }
  return proto;
}

absl::StatusOr<OptionMap> OptionMapFromProto(const RepeatedPtrField<v1::Option>& options) {
  if (static_cast<size_t>(options.size()) > kMaxOptions) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.size(), " options, expected at most ", kMaxOptions));
  }
  OptionMap map;
  for (const v1::Option& option : options) {
    const std::string& name = option.name();
    if (name.empty() || name.size() > kMaxNameBytes) {
      return absl::InvalidArgumentError(absl::StrCat("option ", Quote(name), ": its name has ",
                                                     name.size(), " bytes, expected 1 to ",
                                                     kMaxNameBytes));
    }
    if (map.Find(name) != nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("option ", Quote(name), ": stands twice"));
    }
    absl::StatusOr<OptionValue> value = OptionValueFromProto(option.value());
    if (!value.ok()) return Annotate(absl::StrCat("option ", Quote(name)), value.status());
    map.Set(name, *std::move(value));
  }
  return map;
}

v1::Mode ModeToProto(const Mode& mode) {
  v1::Mode proto;
  if (const auto* synchronous = std::get_if<Synchronous>(&mode)) {
    proto.mutable_synchronous()->set_trainers(synchronous->trainers);
  } else {
    proto.mutable_asynchronous()->set_max_staleness(std::get<Asynchronous>(mode).max_staleness);
  }
  return proto;
}

absl::StatusOr<Mode> ModeFromProto(const v1::Mode& mode) {
  switch (mode.mode_case()) {
    case v1::Mode::kSynchronous: {
      const uint32_t trainers = mode.synchronous().trainers();
      if (trainers >= 1 && trainers <= kMaxTrainers) {
        return Synchronous(static_cast<int>(trainers));
      }
      return absl::InvalidArgumentError(absl::StrCat("mode synchronous with ", trainers,
                                                     " trainers, expected 1 to ", kMaxTrainers));
    }
    case v1::Mode::kAsynchronous:
      return Asynchronous(mode.asynchronous().max_staleness());
    case v1::Mode::MODE_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("mode of no known kind");
}

RepeatedPtrField<v1::ParamGroup> GroupsToProto(const std::vector<ParamGroup>& groups,
                                               absl::Span<const ParameterShape> parameters) {
  absl::flat_hash_map<absl::string_view, uint32_t> position;
  for (size_t i = 0; i < parameters.size(); ++i) position.emplace(parameters[i].name, i);
  RepeatedPtrField<v1::ParamGroup> proto;
  for (const ParamGroup& group : groups) {
    v1::ParamGroup* added = proto.Add();
    *added->mutable_options() = OptionMapToProto(group.options);
    for (const std::string& name : group.params) {
      if (auto found = position.find(name); found != position.end()) {
        added->add_parameters(found->second);
      }
    }
  }
  return proto;
}

absl::StatusOr<std::vector<ParamGroup>> GroupsFromProto(
    const RepeatedPtrField<v1::ParamGroup>& groups, absl::Span<const ParameterShape> parameters) {
  if (static_cast<size_t>(groups.size()) > kMaxGroups) {
    return absl::InvalidArgumentError(
        absl::StrCat(groups.size(), " groups, expected at most ", kMaxGroups));
  }
  std::vector<ParamGroup> parsed;
  for (const v1::ParamGroup& proto : groups) {
    const std::string which = absl::StrCat("group ", parsed.size());
    ParamGroup& group = parsed.emplace_back();
    absl::StatusOr<OptionMap> options = OptionMapFromProto(proto.options());
    if (!options.ok()) return Annotate(which, options.status());
    group.options = *std::move(options);
    for (uint32_t parameter : proto.parameters()) {
      if (parameter >= parameters.size()) {
        return absl::InvalidArgumentError(absl::StrCat(which, ": parameter ", parameter,
                                                       ", the optimizer has ", parameters.size()));
      }
      group.params.push_back(parameters[parameter].name);
    }
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckGroups(parsed));
  return parsed;
}

v1::Plan PlanToProto(const Plan& plan) {
  v1::Plan proto;
  proto.set_plan_id(plan.plan_id);
  for (const PlannedShard& shard : plan.shards) {
    v1::PlannedShard* added = proto.add_shards();
    added->set_parameter(shard.parameter);
    *added->mutable_metadata() = ShardMetadataToProto(shard.metadata);
  }
  return proto;
}

absl::StatusOr<Plan> PlanFromProto(const v1::Plan& plan,
                                   absl::Span<const ParameterShape> parameters) {
  if (plan.plan_id().empty() || plan.plan_id().size() > kMaxNameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("plan id ", Quote(plan.plan_id()), " has ", plan.plan_id().size(), " bytes"));
  }
  if (static_cast<size_t>(plan.shards_size()) > kMaxPlannedShards) {
    return absl::InvalidArgumentError(absl::StrCat(
        "plan of ", plan.shards_size(), " shards, expected at most ", kMaxPlannedShards));
  }
  Plan parsed;
  parsed.plan_id = plan.plan_id();
  int at = 0;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::string which = absl::StrCat("plan: parameter \"", parameters[i].name, "\"");
    std::vector<ShardMetadata> shards;
    for (; at < plan.shards_size() && plan.shards(at).parameter() == i; ++at) {
      absl::StatusOr<ShardMetadata> shard = ShardMetadataFromProto(plan.shards(at).metadata());
      if (!shard.ok()) return Annotate(which, shard.status());
      shards.push_back(*std::move(shard));
    }
    absl::Status covered = CheckTensor(shards, parameters[i].sizes);
    if (covered.ok()) covered = ValidateNonOverlapping(shards);
    if (!covered.ok()) return Annotate(which, covered);
    for (ShardMetadata& shard : shards) {
      parsed.shards.push_back({static_cast<int>(i), std::move(shard)});
    }
  }
  if (at != plan.shards_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("plan: shard ", at, " is of parameter ", plan.shards(at).parameter(),
                     ", expected the parameters' order and no more than ", parameters.size()));
  }
  return parsed;
}

v1::OptimizerDefinition DefinitionToProto(const OptimizerDefinition& definition) {
  v1::OptimizerDefinition proto;
  proto.set_name(definition.name);
  proto.set_kind(definition.kind);
  *proto.mutable_defaults() = OptionMapToProto(definition.defaults);
  *proto.mutable_groups() = GroupsToProto(definition.groups, definition.parameters);
  for (size_t i = 0; i < definition.parameters.size(); ++i) {
    const ParameterShape& parameter = definition.parameters[i];
    v1::Parameter* added = proto.add_parameters();
    added->set_name(parameter.name);
    added->set_dtype(DTypeToProto(parameter.dtype));
    added->mutable_sizes()->Add(parameter.sizes.begin(), parameter.sizes.end());
    if (parameter.spec.has_value()) *added->mutable_spec() = ShardingSpecToProto(*parameter.spec);
    added->set_sharded(i < definition.sharded.size() && definition.sharded[i]);
    if (!parameter.master) added->set_master(false);
  }
  *proto.mutable_mode() = ModeToProto(definition.mode);
  return proto;
}

absl::StatusOr<OptimizerDefinition> DefinitionFromProto(const v1::OptimizerDefinition& proto) {
  OptimizerDefinition definition;
  SHARDSTEP_RETURN_IF_ERROR(ValidateOptimizerName(proto.name()));
  definition.name = proto.name();
  definition.kind = proto.kind();
  SHARDSTEP_ASSIGN_OR_RETURN(definition.defaults,
                             DefaultsFromProto(definition.kind, proto.defaults()));
  if (static_cast<size_t>(proto.parameters_size()) > kMaxParameters) {
    return absl::InvalidArgumentError(
        absl::StrCat(proto.parameters_size(), " parameters, expected at most ", kMaxParameters));
  }
  absl::flat_hash_set<absl::string_view> names;
  for (const v1::Parameter& parameter : proto.parameters()) {
    if (!names.insert(parameter.name()).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("parameter ", Quote(parameter.name()), ": name appears twice"));
    }
    SHARDSTEP_ASSIGN_OR_RETURN(ParameterShape shape, ParameterFromProto(parameter));
    definition.parameters.push_back(std::move(shape));
    definition.sharded.push_back(parameter.sharded());
  }
  SHARDSTEP_ASSIGN_OR_RETURN(definition.groups,
                             GroupsFromProto(proto.groups(), definition.parameters));
  size_t grouped = 0;
  for (ParamGroup& group : definition.groups) {
    SHARDSTEP_ASSIGN_OR_RETURN(group, CompleteGroup(definition.kind, definition.defaults, group));
    grouped += group.params.size();
  }
  if (grouped != definition.parameters.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(definition.parameters.size(), " parameters, ", grouped, " of them in groups"));
  }
  SHARDSTEP_ASSIGN_OR_RETURN(definition.mode, ModeFromProto(proto.mode()));
  return definition;
}

v1::Description DescriptionToProto(const OptimizerDescription& description) {
  v1::Description proto;
  *proto.mutable_definition() = DefinitionToProto(description.definition);
  *proto.mutable_plan() = PlanToProto(description.plan);
  *proto.mutable_groups() = GroupsToProto(description.groups, description.definition.parameters);
  for (const StateSpec& state : description.states) {
    v1::StateSpec* added = proto.add_states();
    added->set_name(state.name);
    added->set_scalar(state.kind == StateSpec::Kind::kScalar);
    added->set_dtype(DTypeToProto(state.dtype));
    added->set_extent(static_cast<v1::StateSpec::Extent>(state.extent));
  }
  return proto;
}

absl::StatusOr<OptimizerDescription> DescriptionFromProto(const v1::Description& proto) {
  OptimizerDescription description;
  SHARDSTEP_ASSIGN_OR_RETURN(description.definition, DefinitionFromProto(proto.definition()));
  const std::vector<ParameterShape>& parameters = description.definition.parameters;
  SHARDSTEP_ASSIGN_OR_RETURN(description.plan, PlanFromProto(proto.plan(), parameters));
  SHARDSTEP_ASSIGN_OR_RETURN(description.groups, GroupsFromProto(proto.groups(), parameters));
  for (const v1::StateSpec& state : proto.states()) {
    SHARDSTEP_ASSIGN_OR_RETURN(StateSpec spec, StateSpecFromProto(state));
    description.states.push_back(std::move(spec));
  }
  return description;
}

}  // namespace shardstep
