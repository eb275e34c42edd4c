// The plan of an optimizer: all shards of all its parameters in one fixed order, with an id. Only
// the coordinator plans; everybody else receives the plan and names it by its id.
//
// Planning is a pure function: the same parameters, number of servers and options give the same
// plan on every machine and in every build. A parameter with a sharding spec is cut as that says.
// The others are placed in their order: small ones whole on the server that then has the fewest
// bytes (of equals the lowest rank), large ones in chunks over all servers. A server may own
// nothing.
#ifndef SHARDSTEP_SHARDING_PLAN_H_
#define SHARDSTEP_SHARDING_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "shardstep/sharding/dtype.h"
#include "shardstep/sharding/parameter_name.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/sharding/shard_metadata.h"
#include "shardstep/sharding/sharding_spec.h"

namespace shardstep {

// Limits on one optimizer, so that what a caller declares cannot exhaust a server.
inline constexpr size_t kMaxParameters = 1'000'000;
inline constexpr size_t kMaxPlannedShards = 2'000'000;

// What is known of a parameter before it has values.
struct ParameterShape {
  std::string name;  // as ValidateName wants it
  DType dtype = DType::kInvalid;
  Shape sizes;
  std::optional<ShardingSpec> spec;  // absent: the planner decides
  // Of float16 and bfloat16: servers keep a float32 master. Nothing else is planned.
  bool master = true;
};

struct PlannedShard {
  int parameter = 0;  // index in the list of parameters
  ShardMetadata metadata;

  friend bool operator==(const PlannedShard& a, const PlannedShard& b) {
    return a.parameter == b.parameter && a.metadata == b.metadata;
  }
};

struct Plan {
  std::vector<PlannedShard> shards;  // in the parameters' order, then in the spec's
  // 32 hex digits: FNV-1a of 128 bits over names, dtypes, sizes and shards. Tells plans apart; no
  // protection against somebody who looks for two plans with one id.
  std::string plan_id;
};

struct PlannerOptions {
  // Parameters of at most so many bytes stay whole. Larger ones are cut along dimension 0, or, if
  // that is smaller than the number of servers, along the largest dimension (of equals the first).
  int64_t whole_below_bytes = 1 << 20;
  // The last dimension is never cut; a parameter that could only be cut there has empty shards.
  bool whole_rows = false;
};

// Plans `parameters` for a fleet of `num_servers`. INVALID_ARGUMENT, naming the parameter: an
// invalid or repeated name; a dtype other than float32, float64, float16 and bfloat16, or one of
// the last two without a master; sizes or a spec that are invalid; a placement outside the fleet;
// limits exceeded; all bytes together above int64. Bytes are those of the master dtype.
absl::StatusOr<Plan> MakePlan(absl::Span<const ParameterShape> parameters, int num_servers,
                              const PlannerOptions& options = {});

// Adds the shards of parameters[first_new..] to a plan that was made for parameters[0..first_new),
// whose shards stay where and in which order they are, and gives it its new id. Errors as MakePlan,
// and if *plan is not one of the first `first_new` parameters; then *plan is unchanged.
absl::Status AppendToPlan(Plan* plan, absl::Span<const ParameterShape> parameters, size_t first_new,
                          int num_servers, const PlannerOptions& options = {});

}  // namespace shardstep

#endif  // SHARDSTEP_SHARDING_PLAN_H_
