#include "shardstep/client/block_runs.h"

#include "shardstep/sharding/shape.h"

namespace shardstep::internal {

BlockRuns::BlockRuns(const Region& part, const Region& a, const Region& b) {
  size_t outer_dims = part.sizes.size();
  bool together = true;
  while (outer_dims > 0 && together) {
    --outer_dims;
    length_ *= part.sizes[outer_dims];
    together = part.sizes[outer_dims] == a.sizes[outer_dims] &&
               part.sizes[outer_dims] == b.sizes[outer_dims];
  }
  outer_.assign(part.sizes.begin(), part.sizes.begin() + outer_dims);
  count_ = length_ == 0 ? 0 : ElementCount(outer_);
  a_ = PlaceOf(part, a, outer_dims);
  b_ = PlaceOf(part, b, outer_dims);
}

BlockRuns::Place BlockRuns::PlaceOf(const Region& part, const Region& block, size_t outer_dims) {
  Place place;
  place.strides.resize(outer_dims);
  int64_t stride = 1;
  for (size_t i = part.sizes.size(); i-- > 0;) {
    place.first += (part.offsets[i] - block.offsets[i]) * stride;
    if (i < outer_dims) place.strides[i] = stride;
    stride *= block.sizes[i];
  }
  return place;
}

int64_t BlockRuns::Offset(int64_t run, const Place& place) const {
  int64_t offset = place.first;
  for (size_t i = outer_.size(); i-- > 0;) {
    offset += run % outer_[i] * place.strides[i];
    run /= outer_[i];
  }
  return offset;
}

int64_t BlockRuns::FirstEndingAfter(int64_t a_offset) const {
  int64_t low = 0;
  int64_t high = count_;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (AOffset(middle) + length_ > a_offset) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

}  // namespace shardstep::internal
