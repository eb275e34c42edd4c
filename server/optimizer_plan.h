// The plan of an optimizer: sharding/plan.h's, with what the optimizer's kind demands of it. Muon's
// parameters lie whole on one server each; row-wise Adagrad's are cut between rows only.
#ifndef SHARDSTEP_SERVER_OPTIMIZER_PLAN_H_
#define SHARDSTEP_SERVER_OPTIMIZER_PLAN_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "shardstep/sharding/plan.h"

namespace shardstep {

// Pure functions. Errors as MakePlan's and AppendToPlan's, and INVALID_ARGUMENT, naming the
// parameter: a size that the kind refuses (CheckSizes), a sharding spec that cuts it where the kind
// cannot be cut.
absl::StatusOr<Plan> MakeOptimizerPlan(absl::string_view kind,
                                       absl::Span<const ParameterShape> parameters,
                                       int num_servers);
absl::Status AppendToOptimizerPlan(absl::string_view kind, Plan* plan,
                                   absl::Span<const ParameterShape> parameters, size_t first_new,
                                   int num_servers);

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_OPTIMIZER_PLAN_H_
