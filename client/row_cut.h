// Gradients of rows, checked, and cut into slices for the shards that their rows fall into.
#ifndef SHARDSTEP_CLIENT_ROW_CUT_H_
#define SHARDSTEP_CLIENT_ROW_CUT_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/client/row_gradient.h"
#include "shardstep/client/tensor_cut.h"

namespace shardstep::internal {

// INVALID_ARGUMENT: not a gradient of this parameter (a parameter without dimensions has no rows),
// a row that it has not, or rows of which one does not fit a frame.
absl::Status CheckRows(const OptimizerIndex& index, int parameter, const RowGradient& gradient);

// Whether some shard gets more rows than it has, which servers do not take.
bool HasTooManyRows(const OptimizerIndex& index, int parameter, const RowGradient& gradient);

// Rows summed by number, in the gradient's order, and the memory that they lie in.
struct SummedRows {
  std::vector<int64_t> rows;
  std::vector<char> elements;
  ConstTensorView values;
};
// `gradient` passed CheckRows, as those below.
std::shared_ptr<const SummedRows> SumRows(const RowGradient& gradient);

// Appends the slices that carry the gradient's part in shard `shard`: none if it has none. They
// refer to the values' memory and hold copies of the numbers; rows whose part is shorter than 256
// bytes on average are copied.
void CutRows(const OptimizerIndex& index, int shard, const RowGradient& gradient,
             std::vector<OutgoingSlice>* out);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_ROW_CUT_H_
