#include "shardstep/checkpoint/region_range.h"

#include <cstddef>

#include "absl/types/span.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {
namespace {

// Adds the elements [begin, end) of `block`, which is one index wide in the dimensions before
// `dim`.
void AddRange(const Region& block, size_t dim, int64_t begin, int64_t end,
              std::vector<Region>* regions) {
  if (begin == end) return;
  if (dim == block.sizes.size()) {
    regions->push_back(block);
    return;
  }
  // Elements of one index of `dim`.
  const int64_t row = ElementCount(absl::MakeConstSpan(block.sizes).subspan(dim + 1));
  const auto rows = [&](int64_t first, int64_t last) {
    Region part = block;
    part.offsets[dim] += first;
    part.sizes[dim] = last - first;
    return part;
  };

  int64_t first = begin / row;
  const int64_t last = end / row;
  if (first == last) {
    AddRange(rows(first, first + 1), dim + 1, begin % row, end % row, regions);
    return;
  }
  if (begin % row != 0) {
    AddRange(rows(first, first + 1), dim + 1, begin % row, row, regions);
    ++first;
  }
  if (first < last) regions->push_back(rows(first, last));
  AddRange(rows(last, last + 1), dim + 1, 0, end % row, regions);
}

}  // namespace

std::vector<Region> RegionsOfRange(const Region& block, int64_t begin, int64_t end) {
  std::vector<Region> regions;
  if (!IsEmpty(block)) AddRange(block, 0, begin, end, &regions);
  return regions;
}

}  // namespace shardstep
