// The states that an optimizer's description lists.
#ifndef SHARDSTEP_SERVER_DESCRIBED_STATES_H_
#define SHARDSTEP_SERVER_DESCRIBED_STATES_H_

#include <vector>

#include "absl/types/span.h"
#include "shardstep/optim/options/state_spec.h"
#include "shardstep/sharding/plan.h"

namespace shardstep {

// The optimizer's own, and kMasterState behind them if a parameter has a master. So a state's
// position stays when parameters are added. A pure function.
std::vector<StateSpec> DescribedStates(std::vector<StateSpec> own,
                                       absl::Span<const ParameterShape> parameters);

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_DESCRIBED_STATES_H_
