#include "shardstep/optim/block_sums.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace shardstep {
namespace {

std::vector<double> His(const std::vector<CompensatedSum>& sums) {
  std::vector<double> values;
  for (const CompensatedSum& sum : sums) values.push_back(sum.hi);
  return values;
}

// 0, 1, 2, ... as two matrices of two rows and three columns.
at::Tensor Counting(at::ScalarType dtype) { return at::arange(12).to(dtype).view({2, 2, 3}); }

TEST(BlockSumsTest, AddsTheSquaresOfWhateverIsAskedFor) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    const at::Tensor values = Counting(dtype);
    std::vector<CompensatedSum> rows(4), columns(6), matrices(2), all(1);
    AddSquares(values, Extent::kRow, rows);
    AddSquares(values, Extent::kColumn, columns);
    AddSquares(values, Extent::kMatrix, matrices);
    AddSquares(values, Extent::kTensor, all);
    EXPECT_EQ(His(rows), (std::vector<double>{5, 50, 149, 302}));
    EXPECT_EQ(His(columns), (std::vector<double>{9, 17, 29, 117, 149, 185}));
    EXPECT_EQ(His(matrices), (std::vector<double>{55, 451}));
    EXPECT_EQ(His(all), (std::vector<double>{506}));
    AddSquares(values, Extent::kTensor, all);
    EXPECT_EQ(His(all), (std::vector<double>{1012}));
  }
}

TEST(BlockSumsTest, AddsValuesPerMatrix) {
  std::vector<CompensatedSum> sums(2);
  AddValues(Counting(at::kFloat), sums);
  EXPECT_EQ(His(sums), (std::vector<double>{15, 51}));
}

// 1 and 2^-80: more digits than float64 has.
TEST(BlockSumsTest, KeepsWhatFloat64WouldLose) {
  const double small = std::ldexp(1.0, -40);
  const at::Tensor values =
      at::tensor({1.0, small, small, 1.0}, at::TensorOptions().dtype(at::kDouble)).view({1, 2, 2});
  std::vector<CompensatedSum> columns(2), rows(2);
  AddSquares(values, Extent::kColumn, columns);
  AddSquares(values, Extent::kRow, rows);
  for (const auto& sums : {columns, rows}) {
    for (const CompensatedSum& sum : sums) EXPECT_EQ(sum, (CompensatedSum{1, small * small}));
  }
}

TEST(BlockSumsTest, ValuesThatAreNotFiniteStayVisible) {
  const double infinity = std::numeric_limits<double>::infinity();
  at::Tensor values = Counting(at::kDouble).slice(0, 0, 1).contiguous();
  values[0][0][1] = infinity;
  values[0][1][2] = std::nan("");
  std::vector<CompensatedSum> columns(3);
  AddSquares(values, Extent::kColumn, columns);
  EXPECT_EQ(columns[0], (CompensatedSum{9, 0}));
  EXPECT_EQ(columns[1], (CompensatedSum{infinity, 0}));
  EXPECT_TRUE(std::isnan(columns[2].hi));
}

TEST(BlockSumsTest, TotalsAreRoundedOnce) {
  // In float32 the root of 2 + 2^-40 is that of 2; a sum of it is 2.
  const std::vector<CompensatedSum> sums = {{2, std::ldexp(1.0, -60)}, {9, 0}};
  const at::Tensor norms = NormTensor(sums, {2, 1}, at::kFloat);
  EXPECT_EQ(norms.sizes(), (at::IntArrayRef{2, 1}));
  EXPECT_EQ(norms.const_data_ptr<float>()[0], static_cast<float>(std::sqrt(2.0)));
  EXPECT_EQ(norms.const_data_ptr<float>()[1], 3);
  EXPECT_EQ(SumTensor(sums, {2}, at::kDouble).const_data_ptr<double>()[0], 2);
}

}  // namespace
}  // namespace shardstep
