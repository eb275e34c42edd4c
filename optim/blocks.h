// How shards are cut into blocks: the unit of work that fits a core's cache and that threads share.
#ifndef SHARDSTEP_OPTIM_BLOCKS_H_
#define SHARDSTEP_OPTIM_BLOCKS_H_

#include <algorithm>
#include <cstdint>

namespace shardstep {

// Elements of a block, counted from the shard's start; the last one is shorter. Sums over elements
// are formed per block, so that the number enters their (compensated) bits.
inline constexpr int64_t kBlockElements = int64_t{1} << 18;

// Elements of a part of a block that stays in a core's cache while one operator after the other
// goes over it: a multiple of every vector's length. Smaller ones cost more calls than they save
// memory's time.
inline constexpr int64_t kPartElements = int64_t{1} << 15;

inline int64_t BlockCount(int64_t elements, int64_t block_elements = kBlockElements) {
  return (elements + block_elements - 1) / block_elements;
}

struct BlockRange {
  int64_t begin;
  int64_t length;
};

// Block `index` of a shard of `elements`.
inline BlockRange BlockAt(int64_t index, int64_t elements,
                          int64_t block_elements = kBlockElements) {
  const int64_t begin = index * block_elements;
  return {begin, std::min(block_elements, elements - begin)};
}

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_BLOCKS_H_
