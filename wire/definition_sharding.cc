// The half of definition.h that is about tensors and where they lie.
#include <string>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"

namespace shardstep {
namespace {

using google::protobuf::RepeatedField;

// Both sides number the dtypes alike, so that a cast converts.
static_assert(static_cast<int>(DType::kFloat32) == v1::FLOAT32 &&
              static_cast<int>(DType::kFloat64) == v1::FLOAT64 &&
              static_cast<int>(DType::kFloat16) == v1::FLOAT16 &&
              static_cast<int>(DType::kBFloat16) == v1::BFLOAT16 &&
              static_cast<int>(DType::kInt8) == v1::INT8 &&
              static_cast<int>(DType::kUInt8) == v1::UINT8 &&
              static_cast<int>(DType::kInt16) == v1::INT16 &&
              static_cast<int>(DType::kInt32) == v1::INT32 &&
              static_cast<int>(DType::kInt64) == v1::INT64 &&
              static_cast<int>(DType::kBool) == v1::BOOL &&
              static_cast<int>(DType::kComplex64) == v1::COMPLEX64 &&
              static_cast<int>(DType::kComplex128) == v1::COMPLEX128);

Shape ShapeFromProto(const RepeatedField<int64_t>& sizes) { return {sizes.begin(), sizes.end()}; }

void ShapeToProto(absl::Span<const int64_t> shape, RepeatedField<int64_t>* sizes) {
  sizes->Add(shape.begin(), shape.end());
}

v1::Placement PlacementToProto(int server_rank, const std::string& device) {
  v1::Placement placement;
  placement.set_server_rank(server_rank);
  placement.set_device(device);
  return placement;
}

absl::StatusOr<Placement> PlacementFromProto(const v1::Placement& proto) {
  ShardMetadata shard;
  shard.placement = {proto.server_rank(), proto.device()};
  SHARDSTEP_RETURN_IF_ERROR(ValidateShardMetadata(shard));
  return shard.placement;
}

}  // namespace

v1::DType DTypeToProto(DType dtype) { return static_cast<v1::DType>(dtype); }

absl::StatusOr<DType> DTypeFromProto(v1::DType dtype) {
  const bool known = dtype != v1::DTYPE_UNSPECIFIED && v1::DType_IsValid(dtype);
  if (!known) return absl::InvalidArgumentError(absl::StrCat("unknown dtype ", int{dtype}));
  return static_cast<DType>(dtype);
}

v1::Region RegionToProto(const Region& region) {
  v1::Region proto;
  ShapeToProto(region.offsets, proto.mutable_offsets());
  ShapeToProto(region.sizes, proto.mutable_sizes());
  return proto;
}

absl::StatusOr<Region> RegionFromProto(const v1::Region& region) {
  ShardMetadata shard;
  shard.offsets = ShapeFromProto(region.offsets());
  shard.sizes = ShapeFromProto(region.sizes());
  SHARDSTEP_RETURN_IF_ERROR(ValidateShardMetadata(shard));
  return Region{shard.offsets, shard.sizes};
}

v1::ShardMetadata ShardMetadataToProto(const ShardMetadata& shard) {
  v1::ShardMetadata proto;
  *proto.mutable_region() = RegionToProto({shard.offsets, shard.sizes});
  proto.set_server_rank(shard.placement.server_rank);
  proto.set_device(shard.placement.device);
  return proto;
}

absl::StatusOr<ShardMetadata> ShardMetadataFromProto(const v1::ShardMetadata& shard) {
  ShardMetadata metadata;
  metadata.offsets = ShapeFromProto(shard.region().offsets());
  metadata.sizes = ShapeFromProto(shard.region().sizes());
  metadata.placement = {shard.server_rank(), shard.device()};
  SHARDSTEP_RETURN_IF_ERROR(ValidateShardMetadata(metadata));
  return metadata;
}

v1::ShardingSpec ShardingSpecToProto(const ShardingSpec& spec) {
  v1::ShardingSpec proto;
  if (const auto* whole = std::get_if<Whole>(&spec)) {
    *proto.mutable_whole() = PlacementToProto(whole->server_rank, whole->device);
  } else if (const auto* chunk = std::get_if<Chunk>(&spec)) {
    proto.mutable_chunk()->set_dim(chunk->dim);
    for (const Placement& placement : chunk->placements) {
      *proto.mutable_chunk()->add_placements() =
          PlacementToProto(placement.server_rank, placement.device);
    }
  } else {
    proto.mutable_enumerable();
    for (const ShardMetadata& shard : std::get<Enumerable>(spec).shards) {
      *proto.mutable_enumerable()->add_shards() = ShardMetadataToProto(shard);
    }
  }
  return proto;
}

absl::StatusOr<ShardingSpec> ShardingSpecFromProto(const v1::ShardingSpec& spec) {
  switch (spec.spec_case()) {
    case v1::ShardingSpec::kWhole: {
      SHARDSTEP_ASSIGN_OR_RETURN(Placement placement, PlacementFromProto(spec.whole()));
      return Whole{placement.server_rank, std::move(placement.device)};
    }
    case v1::ShardingSpec::kChunk: {
      Chunk chunk;
      chunk.dim = spec.chunk().dim();
      for (const v1::Placement& proto : spec.chunk().placements()) {
        SHARDSTEP_ASSIGN_OR_RETURN(Placement placement, PlacementFromProto(proto));
        chunk.placements.push_back(std::move(placement));
      }
      return chunk;
    }
    case v1::ShardingSpec::kEnumerable: {
      Enumerable enumerable;
      for (const v1::ShardMetadata& proto : spec.enumerable().shards()) {
        SHARDSTEP_ASSIGN_OR_RETURN(ShardMetadata shard, ShardMetadataFromProto(proto));
        enumerable.shards.push_back(std::move(shard));
      }
      return enumerable;
    }
    case v1::ShardingSpec::SPEC_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("sharding spec of no known kind");
}

}  // namespace shardstep
