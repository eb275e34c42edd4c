// Which blocks of a tensor a stretch of its memory is.
#ifndef SHARDSTEP_CHECKPOINT_REGION_RANGE_H_
#define SHARDSTEP_CHECKPOINT_REGION_RANGE_H_

#include <cstdint>
#include <vector>

#include "shardstep/sharding/region.h"

namespace shardstep {

// The elements [begin, end) of `block`, counted in its row-major order, as regions of the tensor
// that the block is of: 2 * dims - 1 at most, in that order, none of them empty. Requires 0 <=
// begin
// <= end <= the block's elements. A pure function.
std::vector<Region> RegionsOfRange(const Region& block, int64_t begin, int64_t end);

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_REGION_RANGE_H_
