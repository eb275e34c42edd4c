// Rectangular blocks of a tensor, and which of them meet.
//
// A region is plain data: where it begins in the tensor and how far it reaches in each dimension.
// The functions expect regions of one number of dimensions, without negative numbers and with
// offset + size within int64, as ValidateShardMetadata ensures.
#ifndef SHARDSTEP_SHARDING_REGION_H_
#define SHARDSTEP_SHARDING_REGION_H_

#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {

// Without memory of its own up to four dimensions: regions are made for every tensor that is sent.
using InlineShape = absl::InlinedVector<int64_t, 4>;

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes it for a mistake that an InlinedVector is moved with all of its inline memory.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

struct Region {
  Region() = default;
  Region(absl::Span<const int64_t> offsets, absl::Span<const int64_t> sizes)
      : offsets(offsets.begin(), offsets.end()), sizes(sizes.begin(), sizes.end()) {}

  InlineShape offsets;
  InlineShape sizes;

  friend bool operator==(const Region& a, const Region& b) {
    return a.offsets == b.offsets && a.sizes == b.sizes;
  }
  friend bool operator!=(const Region& a, const Region& b) { return !(a == b); }
};

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

// Whether the region has no elements. One without dimensions has one element.
bool IsEmpty(const Region& region);

// The elements that both have; nullopt if there are none.
std::optional<Region> Intersect(const Region& a, const Region& b);

// What from[`from`] and to[`to`] have in common; never empty.
struct Overlap {
  size_t from;
  size_t to;
  Region part;
};

// Every pair out of `from` and `to` that has common elements, ordered by (to, from): what has to be
// copied to turn one sharding of a tensor into another. Near-linear if one dimension tells the
// regions of `from` apart.
std::vector<Overlap> FindOverlaps(absl::Span<const Region> from, absl::Span<const Region> to);

// Indices (lower first) of two regions that have common elements; nullopt if no two have. Empty
// regions meet nothing. Sorts along the dimension that tells most regions apart: n log n for cuts
// along one dimension, about n^1.5 for a square grid, n^2 at worst.
std::optional<std::pair<size_t, size_t>> FindOverlappingPair(absl::Span<const Region> regions);

}  // namespace shardstep

#endif  // SHARDSTEP_SHARDING_REGION_H_
