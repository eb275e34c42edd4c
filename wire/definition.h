// Definitions, plans and options between messages (v1) and plain data. To a message always
// succeeds. From a message checks everything that the plain type promises, so that what it returns
// can be computed with: INVALID_ARGUMENT names what is wrong, and an enum value that is not known
// is refused. Pure functions, safe from any thread.
#ifndef SHARDSTEP_WIRE_DEFINITION_H_
#define SHARDSTEP_WIRE_DEFINITION_H_

#include <google/protobuf/repeated_field.h>

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "shardstep/optim/options/option_value.h"
#include "shardstep/optim/options/param_group.h"
#include "shardstep/optim/options/state_spec.h"
#include "shardstep/sharding/dtype.h"
#include "shardstep/sharding/plan.h"
#include "shardstep/sharding/region.h"
#include "shardstep/sharding/shard_metadata.h"
#include "shardstep/sharding/sharding_spec.h"
#include "shardstep/v1/definition.pb.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep {

v1::DType DTypeToProto(DType dtype);
absl::StatusOr<DType> DTypeFromProto(v1::DType dtype);

// Lists nest kMaxOptionDepth deep at most.
inline constexpr int kMaxOptionDepth = 8;
v1::OptionValue OptionValueToProto(const OptionValue& value);
absl::StatusOr<OptionValue> OptionValueFromProto(const v1::OptionValue& value);

// Names are not empty, at most kMaxNameBytes long, not repeated, and at most kMaxOptions.
google::protobuf::RepeatedPtrField<v1::Option> OptionMapToProto(const OptionMap& options);
absl::StatusOr<OptionMap> OptionMapFromProto(
    const google::protobuf::RepeatedPtrField<v1::Option>& options);

// Offsets and sizes: equally many, kMaxDims at most, not negative, sums and volume within int64.
v1::Region RegionToProto(const Region& region);
absl::StatusOr<Region> RegionFromProto(const v1::Region& region);

v1::ShardMetadata ShardMetadataToProto(const ShardMetadata& shard);
absl::StatusOr<ShardMetadata> ShardMetadataFromProto(const v1::ShardMetadata& shard);

// Placements and shards are valid each; whether they fit a parameter is for MakeShards to say.
v1::ShardingSpec ShardingSpecToProto(const ShardingSpec& spec);
absl::StatusOr<ShardingSpec> ShardingSpecFromProto(const v1::ShardingSpec& spec);

v1::Mode ModeToProto(const Mode& mode);
absl::StatusOr<Mode> ModeFromProto(const v1::Mode& mode);

// Groups name their parameters by position in `parameters` in a message, by name in plain data.
// Each position exists and stands in one group at most, kMaxGroups at most. To a message leaves out
// names that are not in `parameters`.
google::protobuf::RepeatedPtrField<v1::ParamGroup> GroupsToProto(
    const std::vector<ParamGroup>& groups, absl::Span<const ParameterShape> parameters);
absl::StatusOr<std::vector<ParamGroup>> GroupsFromProto(
    const google::protobuf::RepeatedPtrField<v1::ParamGroup>& groups,
    absl::Span<const ParameterShape> parameters);

// The shards of each parameter cover it exactly, and stand in the parameters' order.
v1::Plan PlanToProto(const Plan& plan);
absl::StatusOr<Plan> PlanFromProto(const v1::Plan& plan,
                                   absl::Span<const ParameterShape> parameters);

// Name, kind, options (completed from the kind's defaults), names, dtypes, sizes and mode are
// valid, and every parameter is in a group. Which dtypes parameters may have and where they are
// placed is for MakePlan to say.
v1::OptimizerDefinition DefinitionToProto(const OptimizerDefinition& definition);
absl::StatusOr<OptimizerDefinition> DefinitionFromProto(const v1::OptimizerDefinition& definition);

v1::Description DescriptionToProto(const OptimizerDescription& description);
absl::StatusOr<OptimizerDescription> DescriptionFromProto(const v1::Description& description);

}  // namespace shardstep

#endif  // SHARDSTEP_WIRE_DEFINITION_H_
