#include "shardstep/optim/matrix_blocks.h"

#include <algorithm>

namespace shardstep {
namespace {

// How many `units` of `unit_elements` a block has.
int64_t UnitsPerBlock(int64_t units, int64_t unit_elements, int64_t block_elements) {
  return std::clamp<int64_t>(block_elements / unit_elements, 1, units);
}

}  // namespace

MatrixShape MatrixShapeOf(absl::Span<const int64_t> sizes) {
  MatrixShape shape;
  const size_t dims = sizes.size();
  if (dims < 2) {
    if (dims == 1) shape.rows = sizes[0];
    return shape;
  }
  shape.matrices = ElementCount(sizes.first(dims - 2));
  shape.rows = sizes[dims - 2];
  shape.columns = sizes[dims - 1];
  return shape;
}

std::vector<MatrixBlock> MatrixBlocks(const MatrixShape& shard, Coupling::Cut cut,
                                      int64_t block_elements) {
  const auto [matrices, rows, columns] = shard;
  std::vector<MatrixBlock> blocks;
  if (matrices == 0 || rows == 0 || columns == 0) return blocks;
  if (cut == Coupling::Cut::kNowhere) return {{{0, 0, 0}, shard}};
  MatrixShape step = {UnitsPerBlock(matrices, rows * columns, block_elements), rows, columns};
  if (rows * columns > block_elements) step.rows = UnitsPerBlock(rows, columns, block_elements);
  if (columns > block_elements && cut == Coupling::Cut::kAnywhere) step.columns = block_elements;
  for (int64_t matrix = 0; matrix < matrices; matrix += step.matrices) {
    for (int64_t row = 0; row < rows; row += step.rows) {
      for (int64_t column = 0; column < columns; column += step.columns) {
        blocks.push_back(
            {{matrix, row, column},
             {std::min(step.matrices, matrices - matrix), std::min(step.rows, rows - row),
              std::min(step.columns, columns - column)}});
      }
    }
  }
  return blocks;
}

ExtentRange ExtentRangeOf(const MatrixBlock& block, Extent extent, const MatrixShape& shard) {
  const auto& [begin, size] = block;
  switch (extent) {
    case Extent::kElement:
      return {(begin.matrices * shard.rows + begin.rows) * shard.columns + begin.columns,
              size.matrices * size.rows * size.columns};
    case Extent::kRow:
      return {begin.matrices * shard.rows + begin.rows, size.matrices * size.rows};
    case Extent::kColumn:
      return {begin.matrices * shard.columns + begin.columns, size.matrices * size.columns};
    case Extent::kMatrix:
      return {begin.matrices, size.matrices};
    case Extent::kTensor:
      break;
  }
  return {0, 1};
}

}  // namespace shardstep
