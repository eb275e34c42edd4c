// The terms of a block's sums, in the order of its elements, and what becomes of totals. Pure
// functions, safe from any thread.
#ifndef SHARDSTEP_OPTIM_BLOCK_SUMS_H_
#define SHARDSTEP_OPTIM_BLOCK_SUMS_H_

#include <ATen/core/Tensor.h>

#include <vector>

#include "shardstep/optim/compensated_sum.h"
#include "shardstep/sharding/extent.h"

namespace shardstep {

// Adds the squares of `values` (contiguous, [matrices, rows, columns], float32 or float64) to
// `sums`: one for each row, column or matrix of it, or one in all.
void AddSquares(const at::Tensor& values, Extent extent, std::vector<CompensatedSum>& sums);

// The same with the values themselves, per matrix.
void AddValues(const at::Tensor& values, std::vector<CompensatedSum>& sums);

// Each sum of squares as the norm that PyTorch keeps, and each sum as it is: rounded once to
// `dtype`, in a tensor of these sizes.
at::Tensor NormTensor(const std::vector<CompensatedSum>& squares, at::IntArrayRef sizes,
                      at::ScalarType dtype);
at::Tensor SumTensor(const std::vector<CompensatedSum>& sums, at::IntArrayRef sizes,
                     at::ScalarType dtype);

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_BLOCK_SUMS_H_
