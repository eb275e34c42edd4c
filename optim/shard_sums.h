// What the shards of a parameter have to add up within a step: one shard's part of one sum.
#ifndef SHARDSTEP_OPTIM_SHARD_SUMS_H_
#define SHARDSTEP_OPTIM_SHARD_SUMS_H_

#include <cstddef>
#include <vector>

#include "shardstep/optim/compensated_sum.h"
#include "shardstep/sharding/extent.h"

namespace shardstep {

struct ShardSums {
  size_t shard = 0;  // index into a LocalOptimizer's shards
  size_t sum = 0;    // which of the round's sums
  // What is summed: one value for each row, column, ... that the shard has a part of, in the order
  // of ExtentRegion's elements.
  Extent extent = Extent::kTensor;
  std::vector<CompensatedSum> values;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_SHARD_SUMS_H_
