#include "shardstep/server/described_states.h"

#include <algorithm>

namespace shardstep {

std::vector<StateSpec> DescribedStates(std::vector<StateSpec> own,
                                       absl::Span<const ParameterShape> parameters) {
  const bool masters =
      std::any_of(parameters.begin(), parameters.end(),
                  [](const ParameterShape& parameter) { return HasMaster(parameter.dtype); });
  if (masters) own.push_back(StateSpec::Tensor(kMasterState));
  return own;
}

}  // namespace shardstep
