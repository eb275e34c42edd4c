// Parameter groups: torch.optim's param_groups, with parameters by name. Plain data and pure
// functions, safe from any thread.
#ifndef SHARDSTEP_OPTIM_OPTIONS_PARAM_GROUP_H_
#define SHARDSTEP_OPTIM_OPTIONS_PARAM_GROUP_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/optim/options/option_value.h"

namespace shardstep {

// Parameters that share options. A complete group has every option of its optimizer; options that
// the optimizer does not know are carried along.
struct ParamGroup {
  OptionMap options;
  std::vector<std::string> params;

  friend bool operator==(const ParamGroup& a, const ParamGroup& b) {
    return a.options == b.options && a.params == b.params;
  }
  friend bool operator!=(const ParamGroup& a, const ParamGroup& b) { return !(a == b); }
};

// The group with what it lacks taken from `defaults` (a result of CompleteOptions), behind its own
// options, as Optimizer.add_param_group does. INVALID_ARGUMENT: what CheckOptions refuses.
absl::StatusOr<ParamGroup> CompleteGroup(absl::string_view kind, const OptionMap& defaults,
                                         const ParamGroup& given);

// INVALID_ARGUMENT in PyTorch's words: no group at all ("optimizer got an empty parameter list"; a
// group without parameters is allowed), a parameter in two groups ("some parameters appear in more
// than one parameter group"). A parameter twice in one group, of which PyTorch only warns, is
// refused too: a name stands for one parameter.
absl::Status CheckGroups(const std::vector<ParamGroup>& groups);

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_OPTIONS_PARAM_GROUP_H_
