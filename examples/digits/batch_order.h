// Which rows are trained on when. Everything is a pure function of the arguments, the same on every
// machine: a trainer that knows an optimizer's version knows its next batch, and one that comes
// back goes on where the fleet is.
#ifndef SHARDSTEP_EXAMPLES_DIGITS_BATCH_ORDER_H_
#define SHARDSTEP_EXAMPLES_DIGITS_BATCH_ORDER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace shardstep {

// A random permutation of `rows`.
std::vector<int64_t> Shuffled(std::vector<int64_t> rows, uint64_t seed);

// Rows 0..rows-1, shuffled: four fifths to train with, the rest to test.
struct RowSplit {
  std::vector<int64_t> train;
  std::vector<int64_t> test;
};
RowSplit SplitRows(int64_t rows, uint64_t seed);

// Epochs of equal batches. Each epoch has its own order of the rows; those that do not fill a batch
// are left out of it.
class BatchOrder {
 public:
  // INVALID_ARGUMENT: no trainers, a batch size that is not a positive multiple of their number,
  // fewer rows than that.
  static absl::StatusOr<BatchOrder> Create(std::vector<int64_t> rows, int64_t batch_size,
                                           int trainers, uint64_t seed);

  int64_t batches_per_epoch() const { return static_cast<int64_t>(rows_.size()) / batch_size_; }
  int trainers() const { return trainers_; }

  // The part that `trainer_rank` (0..trainers()-1) has of the batch that makes version + 1 of
  // version.
  std::vector<int64_t> Rows(uint64_t version, int trainer_rank) const;

 private:
  BatchOrder(std::vector<int64_t> rows, int64_t batch_size, int trainers, uint64_t seed)
      : rows_(std::move(rows)), batch_size_(batch_size), trainers_(trainers), seed_(seed) {}

  std::vector<int64_t> rows_;
  int64_t batch_size_;
  int trainers_;
  uint64_t seed_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_EXAMPLES_DIGITS_BATCH_ORDER_H_
