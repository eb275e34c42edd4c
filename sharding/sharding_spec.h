// Sharding specs: how a parameter is cut into shards and who owns them. What a user may say when
// an optimizer is created; where nothing is said, the planner decides.
//
// Specs are plain data, checked against a parameter's sizes by MakeShards. All errors are
// INVALID_ARGUMENT, in PyTorch's words where PyTorch has the rule
// (torch/distributed/_shard/sharding_spec/).
#ifndef SHARDSTEP_SHARDING_SHARDING_SPEC_H_
#define SHARDSTEP_SHARDING_SHARDING_SPEC_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "shardstep/sharding/shard_metadata.h"

namespace shardstep {

// The whole parameter on one server.
struct Whole {
  int server_rank = 0;
  std::string device = "cpu";
};

// One chunk for each placement along dimension `dim` (negative: counted from the last), as
// PyTorch's ChunkShardingSpec: all chunks ceil(size / placements) long, but the last ones shorter
// or empty. Placements may repeat: the server then owns several shards.
struct Chunk {
  int dim = 0;
  std::vector<Placement> placements;
};

// The shards themselves, as PyTorch's EnumerableShardingSpec. They must cover the parameter
// exactly; their order is the plan's.
struct Enumerable {
  std::vector<ShardMetadata> shards;
};

using ShardingSpec = std::variant<Whole, Chunk, Enumerable>;

// Limit on the shards of one parameter: keeps the check for overlaps short for any input.
inline constexpr int kMaxShardsPerParameter = 16384;

// Cuts dimension d into grid_sizes[d] pieces, each dimension as Chunk cuts its own, and gives the
// blocks in row-major order to `placements`, of which there must be as many as blocks.
absl::StatusOr<Enumerable> Grid(absl::Span<const int64_t> tensor_sizes,
                                absl::Span<const int64_t> grid_sizes,
                                absl::Span<const Placement> placements);

// The shards of a parameter of `tensor_sizes`, in the spec's order; valid, without overlap and
// covering it exactly. Empty ones are kept, and where one begins beyond the parameter, as PyTorch's
// trailing chunks may, its offset is clamped to the dimension.
absl::StatusOr<std::vector<ShardMetadata>> MakeShards(const ShardingSpec& spec,
                                                      absl::Span<const int64_t> tensor_sizes);

}  // namespace shardstep

#endif  // SHARDSTEP_SHARDING_SHARDING_SPEC_H_
