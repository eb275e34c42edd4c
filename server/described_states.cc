#include "shardstep/server/described_states.h"

#include <algorithm>

namespace shardstep {

std::vector<StateSpec> DescribedStates(const Optimizer& optimizer,
                                       absl::Span<const ParameterShape> parameters) {
  std::vector<StateSpec> states = optimizer.AllStates();
  const bool masters = std::any_of(
      parameters.begin(), parameters.end(),
      [](const ParameterShape& parameter) { return HasMaster(parameter.dtype); });
  if (masters) states.push_back(StateSpec::Tensor(kMasterState));
  return states;
}

}  // namespace shardstep
