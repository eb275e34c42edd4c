// Moving elements from one sharding of a tensor to another.
//
// A re-sharding is: FindOverlaps(old regions, new regions) (region.h), then, for each overlap,
// ForEachRun over its part, copying each run from the old block to the new one.
#ifndef SHARDSTEP_SHARDING_OVERLAP_H_
#define SHARDSTEP_SHARDING_OVERLAP_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "shardstep/sharding/region.h"
#include "shardstep/sharding/shard_metadata.h"

namespace shardstep {

// Where the shard lies in its parameter.
Region RegionOf(const ShardMetadata& shard);

// Calls fn(a_offset, b_offset, count) for each run of elements of `part` that is contiguous both in
// block `a` and in block `b`, in row-major order of `part`; offsets and count are in elements, each
// counted in its own block's row-major order. Runs are maximal: two that touch in both blocks are
// one. `part` must lie inside `a` and inside `b` (Intersect's result does); an empty one has no
// run.
void ForEachRun(const Region& part, const Region& a, const Region& b,
                absl::FunctionRef<void(int64_t a_offset, int64_t b_offset, int64_t count)> fn);

// Whether `parts` hold every element of `whole` exactly once and nothing else. Empty parts are
// ignored wherever they are. False if a part has another number of dimensions than `whole`.
bool Covers(absl::Span<const Region> parts, const Region& whole);

}  // namespace shardstep

#endif  // SHARDSTEP_SHARDING_OVERLAP_H_
