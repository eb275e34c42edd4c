#include "shardstep/optim/matrix_blocks.h"

#include <gtest/gtest.h>

#include <vector>

namespace shardstep {
namespace {

using Cut = Coupling::Cut;

struct Case {
  Shape sizes;
  Cut cut;
  int64_t block_elements;
  size_t blocks;
};

TEST(MatrixBlocksTest, FollowEachOtherAndHoldWhatTheCutAsksFor) {
  const std::vector<Case> cases = {{{}, Cut::kAnywhere, 4, 1},
                                   {{9}, Cut::kAnywhere, 4, 3},
                                   {{3, 5}, Cut::kAnywhere, 100, 1},
                                   {{3, 5}, Cut::kAnywhere, 10, 2},
                                   {{3, 5}, Cut::kAnywhere, 4, 6},
                                   {{3, 5}, Cut::kBetweenRows, 4, 3},
                                   {{3, 5}, Cut::kNowhere, 4, 1},
                                   {{2, 4, 3, 5}, Cut::kAnywhere, 30, 4},
                                   {{2, 4, 3, 5}, Cut::kAnywhere, 7, 24},
                                   {{3, 0}, Cut::kAnywhere, 4, 0},
                                   {{0, 3}, Cut::kNowhere, 4, 0}};
  for (const auto& [sizes, cut, block_elements, count] : cases) {
    const MatrixShape shape = MatrixShapeOf(sizes);
    const std::vector<MatrixBlock> blocks = MatrixBlocks(shape, cut, block_elements);
    ASSERT_EQ(blocks.size(), count) << ShapeToString(sizes) << " " << block_elements;
    int64_t next = 0;
    for (const MatrixBlock& block : blocks) {
      const auto [begin, length] = ExtentRangeOf(block, Extent::kElement, shape);
      EXPECT_EQ(begin, next);
      next += length;
      if (cut == Cut::kAnywhere) {
        EXPECT_LE(length, block_elements);
      } else if (cut == Cut::kBetweenRows) {
        EXPECT_EQ(block.size.columns, shape.columns);
      }
    }
    EXPECT_EQ(next, shape.matrices * shape.rows * shape.columns);
  }
}

TEST(MatrixBlocksTest, WhatOneDimensionHasIsAColumn) {
  EXPECT_EQ(MatrixShapeOf({7}).rows, 7);
  EXPECT_EQ(MatrixShapeOf({7}).columns, 1);
  EXPECT_EQ(MatrixShapeOf({}).rows, 1);
}

TEST(MatrixBlocksTest, ABlockKnowsItsPartOfEverySum) {
  const MatrixShape shape = MatrixShapeOf({4, 3, 5});
  // Row 2, columns 3 and 4 of matrix 1.
  const MatrixBlock block = {{1, 2, 3}, {1, 1, 2}};
  const auto range = [&](Extent extent) {
    const auto [begin, length] = ExtentRangeOf(block, extent, shape);
    return std::make_pair(begin, length);
  };
  EXPECT_EQ(range(Extent::kRow), std::make_pair(int64_t{5}, int64_t{1}));
  EXPECT_EQ(range(Extent::kColumn), std::make_pair(int64_t{8}, int64_t{2}));
  EXPECT_EQ(range(Extent::kMatrix), std::make_pair(int64_t{1}, int64_t{1}));
  EXPECT_EQ(range(Extent::kTensor), std::make_pair(int64_t{0}, int64_t{1}));
}

}  // namespace
}  // namespace shardstep
