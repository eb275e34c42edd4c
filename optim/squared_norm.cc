#include "shardstep/optim/squared_norm.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>

namespace shardstep {
namespace {

template <typename T>
inline void AddSquare(T value, int lane, NormLanes* lanes, double* blemish) {
  double square_error = 0;
  double sum_error = 0;
  const double square = Square(value, &square_error);
  lanes->hi[lane] = TwoSum(lanes->hi[lane], square, &sum_error);
  lanes->lo[lane] += sum_error + square_error;
  // 0, or NaN where the value is not finite.
  *blemish += static_cast<double>(value - value);  // NOLINT(misc-redundant-expression)
}

// For any CPU, and for what a kernel leaves.
template <typename T>
bool AddSquares(const T* values, int64_t length, NormLanes* lanes) {
  // These stay 0 as long as every value is finite.
  double blemishes[kNormLanes] = {};
  int64_t i = 0;
  for (; i + kNormLanes <= length; i += kNormLanes) {
    for (int lane = 0; lane < kNormLanes; ++lane) {
      AddSquare(values[i + lane], lane, lanes, &blemishes[lane]);
    }
  }
  for (int lane = 0; i < length; ++i, ++lane) {
    AddSquare(values[i], lane, lanes, &blemishes[lane]);
  }
  return std::all_of(std::begin(blemishes), std::end(blemishes),
                     [](double blemish) { return blemish == 0; });
}

using NormKernel = bool (*)(const float* values, int64_t length, NormLanes* lanes);

// The fastest that the CPU has; null: none.
NormKernel FindKernel() {
  if (__builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
      __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0) {
    return AVX512::AddSquares;
  }
  return __builtin_cpu_supports("avx2") != 0 ? AVX2::AddSquares : nullptr;
}

// max_norm / (norm + 1e-6) with every operation rounded to T.
template <typename T>
double Coefficient(double norm, double max_norm) {
  const T coefficient = static_cast<T>(max_norm) / (static_cast<T>(norm) + static_cast<T>(1e-6));
  return coefficient > 1 ? 1 : coefficient;
}

}  // namespace

void BlockMeter::Add(absl::Span<const float> values) {
  static const NormKernel kernel = FindKernel();
  const auto length = static_cast<int64_t>(values.size());
  const int64_t whole = kernel != nullptr ? length / kNormLanes * kNormLanes : 0;
  if (whole > 0) finite_ &= kernel(values.data(), whole, &lanes_);
  finite_ &= AddSquares(values.data() + whole, length - whole, &lanes_);
}

void BlockMeter::Add(absl::Span<const double> values) {
  finite_ &= AddSquares(values.data(), static_cast<int64_t>(values.size()), &lanes_);
}

BlockNorm BlockMeter::Finish() const {
  BlockNorm result;
  result.finite = finite_;
  for (int lane = 0; lane < kNormLanes; ++lane) {
    result.squares = Sum(result.squares, Settled(lanes_.hi[lane], lanes_.lo[lane]));
  }
  return result;
}

BlockNorm MeasureBlock(absl::Span<const float> values) {
  BlockMeter meter;
  meter.Add(values);
  return meter.Finish();
}

BlockNorm MeasureBlock(absl::Span<const double> values) {
  BlockMeter meter;
  meter.Add(values);
  return meter.Finish();
}

double Norm(const SquaredNorm& squares, bool float64) {
  const double norm = std::sqrt(squares.hi);
  return float64 ? norm : static_cast<float>(norm);
}

double ClipCoefficient(double norm, double max_norm, bool float64) {
  return float64 ? Coefficient<double>(norm, max_norm) : Coefficient<float>(norm, max_norm);
}

}  // namespace shardstep
