// Options and parameter groups as JSON, as Python's json.dumps gives those of torch.optim:
//
//   {"lr": 0.001, "betas": [0.9, 0.999], "foreach": null, "params": ["fc1.weight"]}
//
// None is null, an int has no point, a float has one. JSON has no numbers for infinities and NaN:
// they are {"float": "inf"}, {"float": "-inf"}, {"float": "nan"}. Pure functions, safe from any
// thread.
#ifndef SHARDSTEP_CHECKPOINT_OPTION_JSON_H_
#define SHARDSTEP_CHECKPOINT_OPTION_JSON_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/checkpoint/strict_json.h"
#include "shardstep/optim/options/option_value.h"
#include "shardstep/optim/options/param_group.h"

namespace shardstep {

Json OptionValueToJson(const OptionValue& value);
// INVALID_ARGUMENT: an object other than the three above, an integer beyond 64 bits, lists more
// than 8 deep.
absl::StatusOr<OptionValue> OptionValueFromJson(const Json& json);

Json OptionMapToJson(const OptionMap& options);
// INVALID_ARGUMENT, naming the option: what OptionValueFromJson refuses; an empty or overlong name;
// more than kMaxOptions.
absl::StatusOr<OptionMap> OptionMapFromJson(const Json& json);

// A list of objects: the options, then "params".
Json GroupsToJson(const std::vector<ParamGroup>& groups);
// INVALID_ARGUMENT, naming the group: no list of objects; "params" missing or no list of names (as
// ValidateName wants them); whatever OptionMapFromJson and CheckGroups refuse.
absl::StatusOr<std::vector<ParamGroup>> GroupsFromJson(const Json& json);

// The same as text, as it stands in a safetensors header and in a file of groups.
std::string ParamGroupsToJson(const std::vector<ParamGroup>& groups);
absl::StatusOr<std::vector<ParamGroup>> ParamGroupsFromJson(absl::string_view text);

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_OPTION_JSON_H_
