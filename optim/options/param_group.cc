#include "shardstep/optim/options/param_group.h"

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {

absl::StatusOr<ParamGroup> CompleteGroup(absl::string_view kind, const OptionMap& defaults,
                                         const ParamGroup& given) {
  ParamGroup group = given;
  for (const OptionMap::Entry& entry : defaults) {
    if (group.options.Find(entry.first) == nullptr) group.options.Set(entry.first, entry.second);
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckOptions(kind, group.options));
  return group;
}

absl::Status CheckGroups(const std::vector<ParamGroup>& groups) {
  if (groups.empty()) return absl::InvalidArgumentError("optimizer got an empty parameter list");
  absl::flat_hash_map<absl::string_view, size_t> group_of;
  for (size_t i = 0; i < groups.size(); ++i) {
    for (const std::string& name : groups[i].params) {
      const auto [found, inserted] = group_of.try_emplace(name, i);
      if (inserted) continue;
      if (found->second == i) {
        return absl::InvalidArgumentError(
            absl::StrCat("parameter \"", name, "\": stands twice in one parameter group"));
      }
      return absl::InvalidArgumentError("some parameters appear in more than one parameter group");
    }
  }
  return absl::OkStatus();
}

}  // namespace shardstep
