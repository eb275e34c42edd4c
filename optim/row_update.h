// A step of one shard whose gradient consists of some of the shard's rows: which rows each block
// updates, and how.
//
// The gradient of a shard of R x W elements (W in all dimensions but the first) has n rows,
// ascending and each once, and n x W elements. Rows that it has not keep their values and states.
#ifndef SHARDSTEP_OPTIM_ROW_UPDATE_H_
#define SHARDSTEP_OPTIM_ROW_UPDATE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "shardstep/optim/blocks.h"
#include "shardstep/optim/optimizer.h"

namespace shardstep {

// The unit of work.
struct RowBlock {
  BlockRange shard;  // elements, whole rows, that this block carries over into fresh memory
  BlockRange rows;   // of the gradient; they lie in `shard`
};

// The blocks of a step. `in_place`: nothing is to be carried over, so blocks are cut by the
// gradient's rows alone and their `shard` is empty.
std::vector<RowBlock> CutRows(absl::Span<const int64_t> rows, int64_t row_elements,
                              int64_t elements, bool in_place, int64_t block_elements);

// A shard in a step by rows. Flat tensors are views.
struct RowWork {
  at::Tensor rows;  // int64
  int64_t row_elements = 1;
  // `gradient` has the rows' elements, the others all of the shard's. A state whose `in` is
  // undefined begins with `begins`.
  Block flat;
  std::vector<at::Scalar> begins;
};

// Computes a block: `update` gets the rows gathered into tensors of their own, with the gradient
// times `coefficient`. Thread-safe for distinct blocks. ATen's exceptions pass through it.
void UpdateRows(const RowWork& work, const RowBlock& block, const BlockUpdate& update,
                const std::optional<double>& coefficient);

// The gradient with zeros where it has no row: `elements` of them, flat.
at::Tensor WithoutRows(const at::Tensor& gradient, const at::Tensor& rows, int64_t elements);

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_ROW_UPDATE_H_
