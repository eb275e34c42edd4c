// BlockRuns: what two blocks of a tensor have in common, run by run, without a list of the runs.
#ifndef SHARDSTEP_CLIENT_BLOCK_RUNS_H_
#define SHARDSTEP_CLIENT_BLOCK_RUNS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "shardstep/sharding/region.h"

namespace shardstep::internal {

// The runs of elements of `part` that lie together both in block `a` and in block `b`, in row-major
// order: run i is the `length()` elements from AOffset(i) on in a, from BOffset(i) on in b, each
// counted in its own block's row-major order. Both offsets rise with i. `part` lies inside both (as
// Intersect's result does). Immutable.
class BlockRuns {
 public:
  BlockRuns(const Region& part, const Region& a, const Region& b);

  int64_t count() const { return count_; }
  int64_t length() const { return length_; }
  int64_t AOffset(int64_t run) const { return Offset(run, a_); }
  int64_t BOffset(int64_t run) const { return Offset(run, b_); }

  // The first run that ends behind element `a_offset` of a; count() if none does.
  int64_t FirstEndingAfter(int64_t a_offset) const;

 private:
  struct Place {
    int64_t first = 0;
    std::vector<int64_t> strides;  // of the dimensions that runs do not span, as outer_
  };

  static Place PlaceOf(const Region& part, const Region& block, size_t outer_dims);
  int64_t Offset(int64_t run, const Place& place) const;

  std::vector<int64_t> outer_;
  int64_t count_ = 1;
  int64_t length_ = 1;
  Place a_;
  Place b_;
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_BLOCK_RUNS_H_
