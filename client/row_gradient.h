// A gradient of which only some rows are given: torch's sparse gradients, such as those of
// nn::Embedding(sparse=True).
#ifndef SHARDSTEP_CLIENT_ROW_GRADIENT_H_
#define SHARDSTEP_CLIENT_ROW_GRADIENT_H_

#include <cstdint>

#include "absl/types/span.h"
#include "shardstep/sharding/tensor_view.h"

namespace shardstep {

// Plain data that borrows, as views do. An optimizer may leave the rows alone that are not given
// (SparseAdam does), where a gradient with zeros there would move them.
struct RowGradient {
  // Numbers of rows, along the parameter's dimension 0, in any order. A row that stands several
  // times is the sum, in this order.
  absl::Span<const int64_t> rows;
  // The rows: its size along dimension 0 is rows.size(), the others are the parameter's.
  ConstTensorView values;
};

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_ROW_GRADIENT_H_
