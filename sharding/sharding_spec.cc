#include "shardstep/sharding/sharding_spec.h"

#include <algorithm>
#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

struct Piece {
  int64_t offset;
  int64_t size;
};

// PyTorch's chunking of `size` elements, with offsets that never exceed `size`.
std::vector<Piece> Split(int64_t size, int64_t pieces) {
  const int64_t split = size / pieces + (size % pieces != 0 ? 1 : 0);
  std::vector<Piece> result;
  result.reserve(pieces);
  int64_t offset = 0;
  for (int64_t i = 0; i < pieces; ++i) {
    result.push_back({offset, std::min(split, size - offset)});
    offset += result.back().size;
  }
  return result;
}

absl::Status TooManyShards(size_t count) {
  return absl::InvalidArgumentError(absl::StrCat(
      "sharding spec has ", count, " shards, expected at most ", kMaxShardsPerParameter));
}

ShardMetadata WholeShard(absl::Span<const int64_t> tensor_sizes, Placement placement) {
  return {Shape(tensor_sizes.size(), 0), Shape(tensor_sizes.begin(), tensor_sizes.end()),
          std::move(placement)};
}

absl::StatusOr<std::vector<ShardMetadata>> Cut(const Whole& spec,
                                               absl::Span<const int64_t> tensor_sizes) {
  return std::vector<ShardMetadata>{WholeShard(tensor_sizes, {spec.server_rank, spec.device})};
}

absl::StatusOr<std::vector<ShardMetadata>> Cut(const Chunk& spec,
                                               absl::Span<const int64_t> tensor_sizes) {
  const int dims = static_cast<int>(tensor_sizes.size());
  if (spec.dim < -dims || spec.dim >= dims) {
    return absl::InvalidArgumentError(absl::StrCat("Invalid sharding dim: ", spec.dim,
                                                   ", the tensor's sizes are ",
                                                   ShapeToString(tensor_sizes)));
  }
  if (spec.placements.empty()) {
    return absl::InvalidArgumentError("Chunk has no placements, expected at least one");
  }
  const int dim = spec.dim < 0 ? spec.dim + dims : spec.dim;
  const std::vector<Piece> pieces = Split(tensor_sizes[dim], spec.placements.size());
  std::vector<ShardMetadata> shards;
  shards.reserve(pieces.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    shards.push_back(WholeShard(tensor_sizes, spec.placements[i]));
    shards.back().offsets[dim] = pieces[i].offset;
    shards.back().sizes[dim] = pieces[i].size;
  }
  return shards;
}

absl::StatusOr<std::vector<ShardMetadata>> Cut(const Enumerable& spec,
                                               absl::Span<const int64_t> tensor_sizes) {
  SHARDSTEP_RETURN_IF_ERROR(CheckTensor(spec.shards, tensor_sizes));
  std::vector<ShardMetadata> shards = spec.shards;
  for (ShardMetadata& shard : shards) {
    for (size_t d = 0; d < tensor_sizes.size(); ++d) {
      shard.offsets[d] = std::min(shard.offsets[d], tensor_sizes[d]);
    }
  }
  return shards;
}

size_t NumShards(const Whole&) { return 1; }
size_t NumShards(const Chunk& spec) { return spec.placements.size(); }
size_t NumShards(const Enumerable& spec) { return spec.shards.size(); }

}  // namespace

absl::StatusOr<Enumerable> Grid(absl::Span<const int64_t> tensor_sizes,
                                absl::Span<const int64_t> grid_sizes,
                                absl::Span<const Placement> placements) {
  SHARDSTEP_RETURN_IF_ERROR(NumElements(tensor_sizes).status());
  if (grid_sizes.size() != tensor_sizes.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("grid ", ShapeToString(grid_sizes), " has ", grid_sizes.size(),
                     " dimensions, the tensor has ", tensor_sizes.size()));
  }
  SHARDSTEP_ASSIGN_OR_RETURN(const int64_t blocks, NumElements(grid_sizes));
  if (blocks == 0 || blocks != static_cast<int64_t>(placements.size())) {
    return absl::InvalidArgumentError(absl::StrCat("grid ", ShapeToString(grid_sizes), " has ",
                                                   blocks, " blocks, expected one for each of ",
                                                   placements.size(), " placements"));
  }
  if (blocks > kMaxShardsPerParameter) return TooManyShards(blocks);

  std::vector<std::vector<Piece>> pieces;
  for (size_t d = 0; d < grid_sizes.size(); ++d) {
    pieces.push_back(Split(tensor_sizes[d], grid_sizes[d]));
  }
  Enumerable spec;
  spec.shards.reserve(blocks);
  for (const Placement& placement : placements) {
    ShardMetadata shard = WholeShard(tensor_sizes, placement);
    size_t block = spec.shards.size();
    for (size_t d = grid_sizes.size(); d-- > 0;) {
      const Piece& piece = pieces[d][block % pieces[d].size()];
      block /= pieces[d].size();
      shard.offsets[d] = piece.offset;
      shard.sizes[d] = piece.size;
    }
    spec.shards.push_back(std::move(shard));
  }
  return spec;
}

absl::StatusOr<std::vector<ShardMetadata>> MakeShards(const ShardingSpec& spec,
                                                      absl::Span<const int64_t> tensor_sizes) {
  SHARDSTEP_RETURN_IF_ERROR(NumElements(tensor_sizes).status());
  const size_t count = std::visit([](const auto& s) { return NumShards(s); }, spec);
  if (count > kMaxShardsPerParameter) return TooManyShards(count);
  SHARDSTEP_ASSIGN_OR_RETURN(std::vector<ShardMetadata> shards,
                             std::visit([&](const auto& s) { return Cut(s, tensor_sizes); }, spec));
  SHARDSTEP_RETURN_IF_ERROR(ValidateNonOverlapping(shards));
  return shards;
}

}  // namespace shardstep
