#include "shardstep/sharding/overlap.h"

#include <array>
#include <cassert>
#include <cstddef>
#include <optional>

#include "shardstep/sharding/shape.h"

namespace shardstep {
namespace {

// A block's strides, and where the first element of `part` lies in it.
struct BlockLayout {
  BlockLayout(const Region& block, const Region& part) {
    int64_t stride = 1;
    for (size_t d = block.sizes.size(); d-- > 0;) {
      strides[d] = stride;
      start += (part.offsets[d] - block.offsets[d]) * stride;
      stride *= block.sizes[d];
    }
  }

  std::array<int64_t, kMaxDims> strides = {};
  int64_t start = 0;
};

}  // namespace

Region RegionOf(const ShardMetadata& shard) { return {shard.offsets, shard.sizes}; }

void ForEachRun(const Region& part, const Region& a, const Region& b,
                absl::FunctionRef<void(int64_t, int64_t, int64_t)> fn) {
  assert(Intersect(part, a) == std::optional<Region>(part) || IsEmpty(part));
  assert(Intersect(part, b) == std::optional<Region>(part) || IsEmpty(part));
  if (IsEmpty(part)) return;

  // The last `dims - outer` dimensions form one run: all but the first of them are as wide in the
  // part as in both blocks, so stepping through them leaves no gap.
  size_t outer = part.sizes.size();
  int64_t count = 1;
  while (outer > 0) {
    --outer;
    count *= part.sizes[outer];
    if (part.sizes[outer] != a.sizes[outer] || part.sizes[outer] != b.sizes[outer]) break;
  }

  const BlockLayout in_a(a, part);
  const BlockLayout in_b(b, part);
  int64_t a_offset = in_a.start;
  int64_t b_offset = in_b.start;
  std::array<int64_t, kMaxDims> index = {};
  while (true) {
    fn(a_offset, b_offset, count);
    size_t d = outer;
    while (true) {
      if (d == 0) return;
      --d;
      a_offset += in_a.strides[d];
      b_offset += in_b.strides[d];
      if (++index[d] < part.sizes[d]) break;
      a_offset -= in_a.strides[d] * part.sizes[d];
      b_offset -= in_b.strides[d] * part.sizes[d];
      index[d] = 0;
    }
  }
}

bool Covers(absl::Span<const Region> parts, const Region& whole) {
  int64_t missing = ElementCount(whole.sizes);
  for (const Region& part : parts) {
    if (part.sizes.size() != whole.sizes.size()) return false;
    if (IsEmpty(part)) continue;
    if (Intersect(part, whole) != std::optional<Region>(part)) return false;
    const int64_t volume = ElementCount(part.sizes);
    if (volume > missing) return false;
    missing -= volume;
  }
  return missing == 0 && !FindOverlappingPair(parts).has_value();
}

}  // namespace shardstep
