// One shard of a parameter: where it lies in the parameter and who owns it, with the checks that
// PyTorch makes (torch/distributed/_shard/metadata.py, torch/distributed/remote_device.py and
// torch/distributed/_shard/sharding_spec/_internals.py) in PyTorch's words.
//
// All types are plain data. Every check accepts any input, however large or negative its numbers,
// and fails with INVALID_ARGUMENT.
#ifndef SHARDSTEP_SHARDING_SHARD_METADATA_H_
#define SHARDSTEP_SHARDING_SHARD_METADATA_H_

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {

// The owner of a shard: a server rank (place in the fleet's list, from 0) and a device there.
struct Placement {
  int server_rank = 0;
  std::string device = "cpu";  // "cpu", "cuda:1"

  friend bool operator==(const Placement& a, const Placement& b) {
    return a.server_rank == b.server_rank && a.device == b.device;
  }
  friend bool operator!=(const Placement& a, const Placement& b) { return !(a == b); }
  template <typename H>
  friend H AbslHashValue(H h, const Placement& p) {
    return H::combine(std::move(h), p.server_rank, p.device);
  }
};

// Parses "rank:<server rank>/<device>" or "rank:<server rank>", which means its CPU. Anything else
// fails with PyTorch's words; so do "<worker>/<device>" and "<device>", which PyTorch takes, but
// which name no server rank. Whether the server offers the device is the server's to say.
absl::StatusOr<Placement> ParsePlacement(absl::string_view text);

// "rank:2/cpu".
std::string ToString(const Placement& placement);

// A rectangular block of a parameter. Size 0 in a dimension makes it empty, which is allowed.
struct ShardMetadata {
  Shape offsets;
  Shape sizes;
  Placement placement;

  friend bool operator==(const ShardMetadata& a, const ShardMetadata& b) {
    return a.offsets == b.offsets && a.sizes == b.sizes && a.placement == b.placement;
  }
  friend bool operator!=(const ShardMetadata& a, const ShardMetadata& b) { return !(a == b); }
  template <typename H>
  friend H AbslHashValue(H h, const ShardMetadata& s) {
    return H::combine(std::move(h), s.offsets, s.sizes, s.placement);
  }
};

// "ShardMetadata(shard_offsets=[6,0], shard_sizes=[3,8], placement=rank:1/cpu)".
std::string ToString(const ShardMetadata& shard);

// Offsets and sizes are equally many (kMaxDims at most), not negative, and their sums and the
// number of elements fit int64; the placement is one that ParsePlacement can give.
absl::Status ValidateShardMetadata(const ShardMetadata& shard);

// Each shard is valid, all have one number of dimensions, no two share an element ("Shards X and Y
// overlap"). An empty list passes. Unlike PyTorch's, an empty shard overlaps nothing wherever it
// is. Costs what FindOverlappingPair does (region.h).
absl::Status ValidateNonOverlapping(absl::Span<const ShardMetadata> shards);

// There is a shard, each is valid, all lie inside a tensor of `tensor_sizes`, and their volumes add
// up to its own: together with ValidateNonOverlapping, they cover it exactly. A shard may begin
// beyond a dimension in which its size is 0, as PyTorch's trailing chunks do.
absl::Status CheckTensor(absl::Span<const ShardMetadata> shards,
                         absl::Span<const int64_t> tensor_sizes);

// Every shard is placed on one of `num_servers` servers; the message names shard, rank and servers.
absl::Status CheckPlacements(absl::Span<const ShardMetadata> shards, int num_servers);

}  // namespace shardstep

#endif  // SHARDSTEP_SHARDING_SHARD_METADATA_H_
