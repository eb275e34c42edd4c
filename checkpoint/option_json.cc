#include "shardstep/checkpoint/option_json.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "shardstep/sharding/parameter_name.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep {
namespace {

constexpr int kMaxListDepth = 8;
constexpr char kFloat[] = "float";
constexpr char kParams[] = "params";
// Of a file of groups, or of a header's: kMaxSafetensorsHeaderBytes.
constexpr size_t kMaxGroupsBytes = 100'000'000;

absl::Status Annotate(absl::string_view what, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(what, ": ", status.message()));
}

absl::StatusOr<OptionValue> FloatFromJson(const Json& json) {
  const auto found = json.find(kFloat);
  if (json.size() == 1 && found != json.end() && found->is_string()) {
    const std::string& text = found->get_ref<const std::string&>();
    if (text == "inf") return OptionValue(std::numeric_limits<double>::infinity());
    if (text == "-inf") return OptionValue(-std::numeric_limits<double>::infinity());
    if (text == "nan") return OptionValue(std::numeric_limits<double>::quiet_NaN());
  }
  return absl::InvalidArgumentError(
      R"(an object, expected none but {"float": "inf"}, {"float": "-inf"} and {"float": "nan"})");
}

absl::StatusOr<OptionValue> ValueAtDepth(const Json& json, int depth) {
  switch (json.type()) {
    case Json::value_t::null:
      return OptionValue();
    case Json::value_t::boolean:
      return OptionValue(json.get<bool>());
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) break;
      return OptionValue(json.get<int64_t>());
    case Json::value_t::number_integer:
      return OptionValue(json.get<int64_t>());
    case Json::value_t::number_float:
      return OptionValue(json.get<double>());
    case Json::value_t::string:
      return OptionValue(json.get_ref<const std::string&>());
    case Json::value_t::object:
      return FloatFromJson(json);
    case Json::value_t::array: {
      if (depth == kMaxListDepth) {
        return absl::InvalidArgumentError(
            absl::StrCat("lists are nested more than ", kMaxListDepth, " deep"));
      }
      OptionValue::List list;
      for (const Json& element : json) {
        SHARDSTEP_ASSIGN_OR_RETURN(OptionValue value, ValueAtDepth(element, depth + 1));
        list.push_back(std::move(value));
      }
      return OptionValue(std::move(list));
    }
    default:
      break;
  }
  return absl::InvalidArgumentError(
      absl::StrCat(DumpJson(json), ", expected a value of Python's with integers of 64 bits"));
}

absl::StatusOr<ParamGroup> GroupFromJson(const Json& json) {
  if (!json.is_object()) return absl::InvalidArgumentError("not an object");
  const auto params = json.find(kParams);
  if (params == json.end() || !params->is_array()) {
    return absl::InvalidArgumentError("has no list \"params\"");
  }
  ParamGroup group;
  for (const Json& name : *params) {
    if (!name.is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"params\" holds ", DumpJson(name).substr(0, 64), ", expected names"));
    }
    SHARDSTEP_RETURN_IF_ERROR(ValidateName(name.get_ref<const std::string&>()));
    group.params.push_back(name.get_ref<const std::string&>());
  }
  Json options = Json::object();
  for (const auto& [name, value] : json.items()) {
    if (name != kParams) AddMember(&options, name, value);
  }
  SHARDSTEP_ASSIGN_OR_RETURN(group.options, OptionMapFromJson(options));
  return group;
}

}  // namespace

Json OptionValueToJson(const OptionValue& value) {
  return std::visit(
      [](const auto& held) -> Json {
        using Held = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<Held, std::monostate>) {
          return nullptr;
        } else if constexpr (std::is_same_v<Held, double>) {
          if (std::isfinite(held)) return held;
          return {{kFloat, FloatRepr(held)}};
        } else if constexpr (std::is_same_v<Held, OptionValue::List>) {
          Json list = Json::array();
          for (const OptionValue& element : held) list.push_back(OptionValueToJson(element));
          return list;
        } else {
          return held;
        }
      },
      value.value());
}

absl::StatusOr<OptionValue> OptionValueFromJson(const Json& json) { return ValueAtDepth(json, 0); }

Json OptionMapToJson(const OptionMap& options) {
  Json json = Json::object();
  for (const auto& [name, value] : options) AddMember(&json, name, OptionValueToJson(value));
  return json;
}

absl::StatusOr<OptionMap> OptionMapFromJson(const Json& json) {
  if (!json.is_object()) return absl::InvalidArgumentError("options are not an object");
  if (json.size() > kMaxOptions) {
    return absl::InvalidArgumentError(
        absl::StrCat(json.size(), " options, expected at most ", kMaxOptions));
  }
  OptionMap options;
  for (const auto& [name, value] : json.items()) {
    const std::string what = absl::StrCat("option \"", absl::CHexEscape(name.substr(0, 64)), "\"");
    if (name.empty() || name.size() > kMaxNameBytes) {
      return absl::InvalidArgumentError(absl::StrCat(what, ": its name has ", name.size(),
                                                     " bytes, expected 1 to ", kMaxNameBytes));
    }
    absl::StatusOr<OptionValue> parsed = OptionValueFromJson(value);
    if (!parsed.ok()) return Annotate(what, parsed.status());
    options.Set(name, *parsed);
  }
  return options;
}

Json GroupsToJson(const std::vector<ParamGroup>& groups) {
  Json json = Json::array();
  for (const ParamGroup& group : groups) {
    Json options = OptionMapToJson(group.options);
    AddMember(&options, kParams, group.params);
    json.push_back(std::move(options));
  }
  return json;
}

absl::StatusOr<std::vector<ParamGroup>> GroupsFromJson(const Json& json) {
  if (!json.is_array() || json.size() > kMaxGroups) {
    return absl::InvalidArgumentError(
        absl::StrCat("groups: not a list of at most ", kMaxGroups, " objects"));
  }
  std::vector<ParamGroup> groups;
  for (const Json& entry : json) {
    absl::StatusOr<ParamGroup> group = GroupFromJson(entry);
    if (!group.ok()) return Annotate(absl::StrCat("group ", groups.size()), group.status());
    groups.push_back(*std::move(group));
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckGroups(groups));
  return groups;
}

std::string ParamGroupsToJson(const std::vector<ParamGroup>& groups) {
  return DumpJson(GroupsToJson(groups));
}

absl::StatusOr<std::vector<ParamGroup>> ParamGroupsFromJson(absl::string_view text) {
  SHARDSTEP_ASSIGN_OR_RETURN(const Json json, ParseStrictJson(text, kMaxGroupsBytes));
  return GroupsFromJson(json);
}

}  // namespace shardstep
