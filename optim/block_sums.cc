#include "shardstep/optim/block_sums.h"

#include <ATen/ops/empty.h>

#include "absl/types/span.h"
#include "shardstep/optim/squared_norm.h"

namespace shardstep {
namespace {

// Per column of one matrix: independent sums side by side, so that the compiler can vectorize.
template <typename T>
void AddColumnSquares(const T* values, int64_t rows, int64_t columns, CompensatedSum* sums) {
  std::vector<double> hi(columns), lo(columns);
  for (int64_t row = 0; row < rows; ++row, values += columns) {
    for (int64_t i = 0; i < columns; ++i) {
      double square_error, sum_error;
      const double square = Square(values[i], &square_error);
      hi[i] = TwoSum(hi[i], square, &sum_error);
      lo[i] += sum_error + square_error;
    }
  }
  for (int64_t i = 0; i < columns; ++i) sums[i] = Sum(sums[i], Settled(hi[i], lo[i]));
}

template <typename T>
void AddSquaresOf(const at::Tensor& values, Extent extent, CompensatedSum* sums) {
  const T* data = values.const_data_ptr<T>();
  const int64_t rows = values.size(1), columns = values.size(2);
  if (extent == Extent::kColumn) {
    for (int64_t matrix = 0; matrix < values.size(0); ++matrix) {
      AddColumnSquares(data + matrix * rows * columns, rows, columns, sums + matrix * columns);
    }
    return;
  }
  const int64_t length = extent == Extent::kRow      ? columns
                         : extent == Extent::kMatrix ? rows * columns
                                                     : values.numel();
  for (int64_t begin = 0; begin < values.numel(); begin += length, ++sums) {
    *sums = Sum(*sums, MeasureBlock(absl::MakeConstSpan(data + begin, length)).squares);
  }
}

template <typename T>
void AddValuesOf(const at::Tensor& values, CompensatedSum* sums) {
  const T* data = values.const_data_ptr<T>();
  const int64_t length = values.size(1) * values.size(2);
  for (int64_t begin = 0; begin < values.numel(); begin += length, ++sums) {
    for (int64_t i = begin; i < begin + length; ++i) *sums = Sum(*sums, {data[i], 0});
  }
}

template <typename Function>
at::Tensor Map(const std::vector<CompensatedSum>& sums, at::IntArrayRef sizes, at::ScalarType dtype,
               Function function) {
  const at::Tensor result = at::empty(sizes, at::TensorOptions().dtype(at::kDouble));
  double* data = result.mutable_data_ptr<double>();
  for (size_t i = 0; i < sums.size(); ++i) data[i] = function(sums[i]);
  return result.to(dtype);
}

}  // namespace

void AddSquares(const at::Tensor& values, Extent extent, std::vector<CompensatedSum>& sums) {
  if (values.scalar_type() == at::kFloat) {
    AddSquaresOf<float>(values, extent, sums.data());
  } else {
    AddSquaresOf<double>(values, extent, sums.data());
  }
}

void AddValues(const at::Tensor& values, std::vector<CompensatedSum>& sums) {
  if (values.scalar_type() == at::kFloat) {
    AddValuesOf<float>(values, sums.data());
  } else {
    AddValuesOf<double>(values, sums.data());
  }
}

at::Tensor NormTensor(const std::vector<CompensatedSum>& squares, at::IntArrayRef sizes,
                      at::ScalarType dtype) {
  const bool float64 = dtype == at::kDouble;
  return Map(squares, sizes, dtype,
             [float64](const CompensatedSum& sum) { return Norm(sum, float64); });
}

at::Tensor SumTensor(const std::vector<CompensatedSum>& sums, at::IntArrayRef sizes,
                     at::ScalarType dtype) {
  return Map(sums, sizes, dtype, [](const CompensatedSum& sum) { return sum.hi; });
}

}  // namespace shardstep
