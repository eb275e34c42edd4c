// Sharding specs and plans as JSON. To JSON always succeeds. From JSON checks everything that the
// plain types promise: INVALID_ARGUMENT names the place. Pure functions, safe from any thread.
#ifndef SHARDSTEP_CHECKPOINT_SHARDING_JSON_H_
#define SHARDSTEP_CHECKPOINT_SHARDING_JSON_H_

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "shardstep/checkpoint/strict_json.h"
#include "shardstep/sharding/plan.h"
#include "shardstep/sharding/sharding_spec.h"

namespace shardstep {

// {"whole": placement}, {"chunk": dim, "placements": [...]}, {"shards": [[offsets, sizes,
// placement]]}; a placement is "rank:2/cpu".
Json SpecToJson(const ShardingSpec& spec);
// Whether the spec fits a parameter is for MakeShards to say.
absl::StatusOr<ShardingSpec> SpecFromJson(const Json& json);

// {"plan_id", "shards": [[index of the parameter, offsets, sizes, placement]]}.
Json PlanToJson(const Plan& plan);
// The shards stand in the parameters' order and cover each exactly.
absl::StatusOr<Plan> PlanFromJson(const Json& json, absl::Span<const ParameterShape> parameters);

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_SHARDING_JSON_H_
