// From rows that the trainers pushed to the gradient of one shard: reduction.h's arithmetic for
// gradients of which only some rows were pushed.
//
//   of each contribution: rows of one number are summed, in the order pushed
//   reduced row = (c0 * w0 + c1 * w1 + ...) / divisor * (1 / grad_scale)
//
// over the contributions that have the row, in the order given, rounding by rounding as in
// reduction.h. The result has every row that was pushed once, ascending. It is the same to the last
// bit however rows and columns are cut into shards, and blocks spread over threads.
#ifndef SHARDSTEP_OPTIM_ROW_REDUCTION_H_
#define SHARDSTEP_OPTIM_ROW_REDUCTION_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "shardstep/optim/reduction.h"
#include "shardstep/optim/squared_norm.h"

namespace shardstep {

// Rows as they came together: their numbers (flat int64) and their elements (flat).
struct RowChunk {
  at::Tensor rows;
  at::Tensor elements;
};

// One push's part in one shard. A row may come several times.
struct RowContribution {
  std::vector<RowChunk> chunks;
  double weight = 1;
};

// Of a shard: how many rows it has, and elements in each.
struct RowShape {
  int64_t rows = 0;
  int64_t row_elements = 0;
};

struct ReducedRows {
  at::Tensor rows;      // int64, ascending
  at::Tensor gradient;  // two-dimensional: rows by row_elements
  bool finite = true;
  SquaredNorm squares;
};

// One reduction of one shard: as Reduction, Create, RunBlock for every block, Finish.
class RowReduction {
 public:
  // INVALID_ARGUMENT: what Reduction refuses of dtype and factors; chunks that do not fit the
  // shape. RESOURCE_EXHAUSTED: no memory.
  static absl::StatusOr<RowReduction> Create(std::vector<RowContribution> contributions,
                                             at::ScalarType dtype, const RowShape& shape,
                                             const ReductionOptions& options);

  size_t num_blocks() const { return blocks_.size(); }

  // Thread-safe for distinct blocks; blocks on nothing.
  void RunBlock(size_t index);

  // Gives the result, once. INTERNAL, RESOURCE_EXHAUSTED: a block failed.
  absl::StatusOr<ReducedRows> Finish();

 private:
  // A pushed row.
  struct Entry {
    int64_t row = 0;
    size_t contribution = 0;
    const void* elements = nullptr;
  };
  struct BlockResult {
    std::vector<Entry> entries;  // in the order pushed
    std::vector<int64_t> rows;
    at::Tensor gradient;
    BlockNorm norm;
    absl::Status status;
  };

  RowReduction() = default;
  void Spread();
  template <typename T>
  void ReduceBlock(BlockResult* block) const;
  // Sums a row's entries, which stand together.
  template <typename T>
  void ReduceRow(absl::Span<const Entry> entries, T* out, T* scratch) const;
  absl::Status Join(ReducedRows* reduced);

  std::vector<RowContribution> contributions_;
  at::ScalarType dtype_ = at::kFloat;
  RowShape shape_;
  ReductionOptions options_;
  std::vector<BlockResult> blocks_;
};

// A contribution's rows as a whole gradient, flat, with zeros elsewhere: what Reduction takes where
// others pushed the parameter whole. Errors as RowReduction::Create's.
absl::StatusOr<at::Tensor> DenseFromRows(const RowContribution& contribution, at::ScalarType dtype,
                                         const RowShape& shape);

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_ROW_REDUCTION_H_
