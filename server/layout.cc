#include "shardstep/server/layout.h"

#include <algorithm>
#include <utility>

#include "shardstep/optim/options/state_spec.h"
#include "shardstep/sharding/extent.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/shape.h"
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
  layout->states = std::move(description.states);
  layout->server_rank = server_rank;
  layout->master = layout->FindState(kMasterState);
  for (const ParameterShape& parameter : layout->parameters) {
    layout->mixed_dtypes = layout->mixed_dtypes ||
                           MasterDType(parameter.dtype) != MasterDType(layout->parameters[0].dtype);
  }
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
    info.declared = layout->parameters[shard.parameter].dtype;
    info.dtype = MasterDType(info.declared);
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

LocalTensor Layout::TensorOf(size_t local_shard, uint32_t tensor) const {
  const LocalShardInfo& shard = local[local_shard];
  const Extent extent = tensor == 0 ? Extent::kElement : states[tensor - 1].extent;
  LocalTensor info{shard.dtype, shard.elements, shard.bytes, true};
  if (extent == Extent::kElement) return info;
  info.elements = ElementCount(ExtentSizes(extent, shard.region.sizes));
  info.bytes = info.elements * ItemSize(info.dtype);
  info.speaks = info.elements == 0 || IsFirstOfExtent(extent, shard.region);
  return info;
}

Region Layout::TensorRegion(size_t local_shard, uint32_t tensor) const {
  return TensorPartOf(local[local_shard].region, tensor);
}

Region Layout::TensorPartOf(const Region& region, uint32_t tensor) const {
  return tensor == 0 ? region : ExtentRegion(states[tensor - 1].extent, region);
}

Shape Layout::TensorSizes(int parameter, uint32_t tensor) const {
  const Shape& sizes = parameters[parameter].sizes;
  return tensor == 0 ? sizes : ExtentSizes(states[tensor - 1].extent, sizes);
}

std::pair<size_t, size_t> Layout::LocalShardsOf(int parameter) const {
  const auto first = std::partition_point(
      local.begin(), local.end(),
      [parameter](const LocalShardInfo& shard) { return shard.parameter < parameter; });
  const auto end = std::find_if(first, local.end(), [parameter](const LocalShardInfo& shard) {
    return shard.parameter != parameter;
  });
  return {first - local.begin(), end - local.begin()};
}

uint32_t Layout::FindState(absl::string_view name) const {
  const auto found = std::find_if(states.begin(), states.end(),
                                  [name](const StateSpec& state) { return state.name == name; });
  return found == states.end() ? 0 : found - states.begin() + 1;
}

}  // namespace shardstep
