#include "shardstep/client/optimizer_index.h"

#include <cstddef>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/extent.h"
#include "shardstep/sharding/nearest_name.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep::internal {
namespace {

enum class Takes { kDType, kDTypeOrMaster };

absl::Status CheckBlock(const ParameterInfo& parameter, const Region& region,
                        const ConstTensorView& view, Takes takes) {
  const auto refuse = [&parameter](const auto&... words) {
    return absl::InvalidArgumentError(
        absl::StrCat("parameter \"", parameter.name, "\": ", words...));
  };
  const DType master = MasterDType(parameter.dtype);
  const bool or_master = takes == Takes::kDTypeOrMaster && master != parameter.dtype;
  if (view.dtype != parameter.dtype && !(or_master && view.dtype == master)) {
    return refuse("expected dtype ", DTypeName(parameter.dtype),
                  or_master ? absl::StrCat(" or ", DTypeName(master)) : "", ", got ",
                  DTypeName(view.dtype));
  }
  if (absl::MakeConstSpan(view.sizes) != absl::MakeConstSpan(region.sizes)) {
    return refuse("expected shape ", ShapeToString(region.sizes), ", got ",
                  ShapeToString(view.sizes));
  }
  if (const absl::Status valid = view.Validate(); !valid.ok()) return refuse(valid.message());
  return absl::OkStatus();
}

}  // namespace

Region WholeRegion(const Shape& sizes) { return {Shape(sizes.size(), 0), sizes}; }

OptimizerIndex::OptimizerIndex(OptimizerDescription description)
    : description_(std::move(description)) {
  const std::vector<ParameterShape>& parameters = description_.definition.parameters;
  for (const ParameterShape& parameter : parameters) {
    by_name_.emplace(parameter.name, static_cast<int>(parameters_.size()));
    parameters_.push_back({parameter.name, parameter.dtype, parameter.sizes});
  }
  first_shard_.resize(parameters.size() + 1, 0);
  for (const PlannedShard& shard : description_.plan.shards) ++first_shard_[shard.parameter + 1];
  for (size_t i = 0; i < parameters.size(); ++i) first_shard_[i + 1] += first_shard_[i];
}

absl::StatusOr<int> OptimizerIndex::Find(absl::string_view parameter_name) const {
  const auto found = by_name_.find(parameter_name);
  if (found != by_name_.end()) return found->second;
  NearestNameSearch search(parameter_name);
  for (const ParameterInfo& parameter : parameters_) search.Consider(parameter.name);
  std::string message =
      absl::StrCat("parameter \"", parameter_name, "\": not in optimizer \"", name(), "\"");
  if (!search.nearest().empty()) {
    absl::StrAppend(&message, "; did you mean \"", search.nearest(), "\"");
  }
  return absl::NotFoundError(message);
}

std::pair<int, int> OptimizerIndex::ShardsOf(int parameter) const {
  return {first_shard_[parameter], first_shard_[parameter + 1]};
}

DType OptimizerIndex::TensorDType(int parameter, uint32_t tensor) const {
  const DType dtype = parameters_[parameter].dtype;
  return tensor == 0 ? dtype : MasterDType(dtype);
}

Shape OptimizerIndex::TensorSizes(int parameter, uint32_t tensor) const {
  const Shape& sizes = parameters_[parameter].sizes;
  return tensor == 0 ? sizes : ExtentSizes(description_.states[tensor - 1].extent, sizes);
}

Region OptimizerIndex::TensorRegion(int shard, uint32_t tensor) const {
  return TensorPartOf(RegionOf(description_.plan.shards[shard].metadata), tensor);
}

Region OptimizerIndex::TensorPartOf(const Region& region, uint32_t tensor) const {
  return tensor == 0 ? region : ExtentRegion(description_.states[tensor - 1].extent, region);
}

absl::StatusOr<std::vector<Block>> OptimizerIndex::BlocksOf(int parameter,
                                                            const NamedTensor& tensor) const {
  const ParameterInfo& info = parameters_[parameter];
  if (tensor.local_shards.empty()) {
    const Region whole = WholeRegion(info.sizes);
    SHARDSTEP_RETURN_IF_ERROR(CheckBlock(info, whole, tensor.value, Takes::kDType));
    return std::vector<Block>{{whole, tensor.value}};
  }
  std::vector<Block> blocks;
  std::vector<ShardMetadata> metadata;
  for (const LocalShard& local : tensor.local_shards) {
    const Region region = RegionOf(local.metadata);
    SHARDSTEP_RETURN_IF_ERROR(CheckBlock(info, region, local.view, Takes::kDType));
    const std::optional<Region> inside = Intersect(region, WholeRegion(info.sizes));
    if (!IsEmpty(region) && (!inside || *inside != region)) {
      return absl::InvalidArgumentError(absl::StrCat("parameter \"", info.name, "\": local shard ",
                                                     ToString(local.metadata), " is not inside ",
                                                     ShapeToString(info.sizes)));
    }
    blocks.push_back({region, local.view});
    metadata.push_back(local.metadata);
  }
  if (const absl::Status apart = ValidateNonOverlapping(metadata); !apart.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("parameter \"", info.name, "\": ", apart.message()));
  }
  return blocks;
}

absl::StatusOr<std::vector<Block>> OptimizerIndex::BlocksOf(
    int parameter, absl::Span<const Region> regions,
    absl::Span<const ConstTensorView> views) const {
  const ParameterInfo& info = parameters_[parameter];
  if (views.size() != regions.size()) {
    return absl::InvalidArgumentError(absl::StrCat("parameter \"", info.name, "\": expected ",
                                                   regions.size(), " local shards, got ",
                                                   views.size()));
  }
  std::vector<Block> blocks;
  for (size_t i = 0; i < views.size(); ++i) {
    SHARDSTEP_RETURN_IF_ERROR(CheckBlock(info, regions[i], views[i], Takes::kDTypeOrMaster));
    // Blocks that are sent are only read.
    blocks.push_back(
        {regions[i], {const_cast<void*>(views[i].data), views[i].dtype, views[i].sizes}});
  }
  return blocks;
}

}  // namespace shardstep::internal
