#include "shardstep/server/layout.h"

#include <utility>

#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"

namespace shardstep {

absl::StatusOr<std::shared_ptr<const Layout>> Layout::Make(v1::Description message,
                                                           int server_rank) {
  SHARDSTEP_ASSIGN_OR_RETURN(OptimizerDescription description, DescriptionFromProto(message));
  auto layout = std::make_shared<Layout>();
  layout->description = std::move(message);
  layout->parameters = std::move(description.definition.parameters);
  layout->sharded = std::move(description.definition.sharded);
  layout->plan = std::move(description.plan);
  layout->server_rank = server_rank;
  for (size_t i = 0; i < layout->parameters.size(); ++i) {
    layout->parameter_index.emplace(layout->parameters[i].name, i);
  }
  layout->local_of.assign(layout->plan.shards.size(), -1);
  for (size_t i = 0; i < layout->plan.shards.size(); ++i) {
    const PlannedShard& shard = layout->plan.shards[i];
    if (shard.metadata.placement.server_rank != server_rank) continue;
    LocalShardInfo info;
    info.shard = i;
    info.parameter = shard.parameter;
    info.dtype = layout->parameters[shard.parameter].dtype;
    info.region = RegionOf(shard.metadata);
    SHARDSTEP_ASSIGN_OR_RETURN(info.elements, NumElements(shard.metadata.sizes));
    SHARDSTEP_ASSIGN_OR_RETURN(info.bytes, NumBytes(shard.metadata.sizes, info.dtype));
    if (!info.region.sizes.empty()) {
      info.rows = info.region.sizes[0];
      SHARDSTEP_ASSIGN_OR_RETURN(info.row_elements, NumElements(Shape(info.region.sizes.begin() + 1,
                                                                      info.region.sizes.end())));
    }
    layout->local_bytes += info.bytes;
    layout->local_of[i] = static_cast<int32_t>(layout->local.size());
    layout->local.push_back(std::move(info));
  }
  return layout;
}

}  // namespace shardstep
