#include "shardstep/sharding/region.h"

#include <algorithm>
#include <cstdint>

namespace shardstep {
namespace {

// Whether two regions, neither of them empty, have common elements.
bool Meet(const Region& a, const Region& b) {
  for (size_t d = 0; d < a.sizes.size(); ++d) {
    if (a.offsets[d] >= b.offsets[d] + b.sizes[d]) return false;
    if (b.offsets[d] >= a.offsets[d] + a.sizes[d]) return false;
  }
  return true;
}

struct Interval {
  int64_t begin;
  int64_t end;
  size_t index;
};

// Without dimensions all regions share one point.
Interval IntervalAlong(const Region& region, size_t dim, size_t index) {
  if (region.sizes.empty()) return {0, 1, index};
  return {region.offsets[dim], region.offsets[dim] + region.sizes[dim], index};
}

// The regions that are not empty, by begin.
std::vector<Interval> SortedAlong(absl::Span<const Region> regions, size_t dim) {
  std::vector<Interval> sorted;
  sorted.reserve(regions.size());
  for (size_t i = 0; i < regions.size(); ++i) {
    if (!IsEmpty(regions[i])) sorted.push_back(IntervalAlong(regions[i], dim, i));
  }
  std::sort(sorted.begin(), sorted.end(), [](const Interval& a, const Interval& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.index < b.index;
  });
  return sorted;
}

// The dimension with the most different begins.
size_t BestDim(absl::Span<const Region> regions) {
  const size_t dims = regions.empty() ? 0 : regions[0].sizes.size();
  size_t best = 0;
  size_t best_begins = 0;
  std::vector<int64_t> begins(regions.size());
  for (size_t dim = 0; dim < dims; ++dim) {
    for (size_t i = 0; i < regions.size(); ++i) begins[i] = regions[i].offsets[dim];
    std::sort(begins.begin(), begins.end());
    const size_t different = std::unique(begins.begin(), begins.end()) - begins.begin();
    begins.resize(regions.size());
    if (different > best_begins) {
      best = dim;
      best_begins = different;
    }
  }
  return best;
}

}  // namespace

bool IsEmpty(const Region& region) {
  return std::find(region.sizes.begin(), region.sizes.end(), 0) != region.sizes.end();
}

std::optional<Region> Intersect(const Region& a, const Region& b) {
  Region part;
  part.offsets.reserve(a.sizes.size());
  part.sizes.reserve(a.sizes.size());
  for (size_t d = 0; d < a.sizes.size(); ++d) {
    const int64_t begin = std::max(a.offsets[d], b.offsets[d]);
    const int64_t end = std::min(a.offsets[d] + a.sizes[d], b.offsets[d] + b.sizes[d]);
    if (begin >= end) return std::nullopt;
    part.offsets.push_back(begin);
    part.sizes.push_back(end - begin);
  }
  return part;
}

std::vector<Overlap> FindOverlaps(absl::Span<const Region> from, absl::Span<const Region> to) {
  const size_t dim = BestDim(from);
  const std::vector<Interval> sorted = SortedAlong(from, dim);
  // reach[i]: the furthest end among sorted[0..i]. It never falls, so it can be searched.
  std::vector<int64_t> reach;
  reach.reserve(sorted.size());
  for (const Interval& interval : sorted) {
    reach.push_back(reach.empty() ? interval.end : std::max(reach.back(), interval.end));
  }

  std::vector<Overlap> overlaps;
  std::vector<size_t> candidates;
  for (size_t t = 0; t < to.size(); ++t) {
    if (IsEmpty(to[t])) continue;
    const Interval wanted = IntervalAlong(to[t], dim, t);
    candidates.clear();
    const size_t first = std::upper_bound(reach.begin(), reach.end(), wanted.begin) - reach.begin();
    for (size_t i = first; i < sorted.size() && sorted[i].begin < wanted.end; ++i) {
      candidates.push_back(sorted[i].index);
    }
    std::sort(candidates.begin(), candidates.end());
    for (size_t f : candidates) {
      if (Meet(from[f], to[t])) overlaps.push_back({f, t, *Intersect(from[f], to[t])});
    }
  }
  return overlaps;
}

std::optional<std::pair<size_t, size_t>> FindOverlappingPair(absl::Span<const Region> regions) {
  const std::vector<Interval> sorted = SortedAlong(regions, BestDim(regions));
  for (size_t i = 0; i < sorted.size(); ++i) {
    for (size_t j = i + 1; j < sorted.size() && sorted[j].begin < sorted[i].end; ++j) {
      const auto [low, high] = std::minmax(sorted[i].index, sorted[j].index);
      if (Meet(regions[low], regions[high])) return std::make_pair(low, high);
    }
  }
  return std::nullopt;
}

}  // namespace shardstep
