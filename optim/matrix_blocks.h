// How a shard is cut into blocks where rows and columns matter: it is seen as matrices of its last
// two dimensions (one without those as one column), and every block is a box of them whose elements
// lie one after the other. Plain data and pure functions, safe from any thread.
#ifndef SHARDSTEP_OPTIM_MATRIX_BLOCKS_H_
#define SHARDSTEP_OPTIM_MATRIX_BLOCKS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "shardstep/optim/options/coupling.h"
#include "shardstep/sharding/extent.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {

struct MatrixShape {
  int64_t matrices = 1;
  int64_t rows = 1;
  int64_t columns = 1;
};

MatrixShape MatrixShapeOf(absl::Span<const int64_t> sizes);

// Whole matrices, or whole rows of one, or a part of one row.
struct MatrixBlock {
  MatrixShape begin;
  MatrixShape size;
};

// The blocks of a shard in the order of its elements, of `block_elements` at most unless `cut` asks
// for whole rows, or for all in one.
std::vector<MatrixBlock> MatrixBlocks(const MatrixShape& shard, Coupling::Cut cut,
                                      int64_t block_elements);

// The values of a block among those that a sum over `extent` has for the shard: the first one's
// index, and how many. Columns only of what has two dimensions.
struct ExtentRange {
  int64_t begin;
  int64_t length;
};
ExtentRange ExtentRangeOf(const MatrixBlock& block, Extent extent, const MatrixShape& shard);

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_MATRIX_BLOCKS_H_
