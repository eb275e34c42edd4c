#include "shardstep/optim/squared_norm.h"

#include <array>
#include <cmath>

namespace shardstep {
namespace {

// Independent partial sums, so that the additions need not wait for each other. The number is part
// of the definition of a block's sum.
constexpr int kLanes = 8;

struct Lanes {
  std::array<double, kLanes> hi = {};
  std::array<double, kLanes> lo = {};
  // Stays 0 as long as every value is finite.
  std::array<double, kLanes> blemish = {};
};

template <typename T>
inline void Accumulate(T value, int lane, Lanes* lanes) {
  double square_error, sum_error;
  const double square = Square(value, &square_error);
  lanes->hi[lane] = TwoSum(lanes->hi[lane], square, &sum_error);
  lanes->lo[lane] += sum_error + square_error;
  lanes->blemish[lane] += static_cast<double>(value - value);
}

template <typename T>
BlockNorm Measure(absl::Span<const T> values) {
  Lanes lanes;
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) Accumulate(values[i + lane], lane, &lanes);
  }
  for (int lane = 0; i < values.size(); ++i, ++lane) Accumulate(values[i], lane, &lanes);

  BlockNorm result;
  for (int lane = 0; lane < kLanes; ++lane) {
    result.squares = Sum(result.squares, Settled(lanes.hi[lane], lanes.lo[lane]));
    result.finite = result.finite && lanes.blemish[lane] == 0;
  }
  return result;
}

// max_norm / (norm + 1e-6) with every operation rounded to T.
template <typename T>
double Coefficient(double norm, double max_norm) {
  const T coefficient = static_cast<T>(max_norm) / (static_cast<T>(norm) + static_cast<T>(1e-6));
  return coefficient > 1 ? 1 : coefficient;
}

}  // namespace

BlockNorm MeasureBlock(absl::Span<const float> values) { return Measure(values); }
BlockNorm MeasureBlock(absl::Span<const double> values) { return Measure(values); }

double Norm(const SquaredNorm& squares, bool float64) {
  const double norm = std::sqrt(squares.hi);
  return float64 ? norm : static_cast<float>(norm);
}

double ClipCoefficient(double norm, double max_norm, bool float64) {
  return float64 ? Coefficient<double>(norm, max_norm) : Coefficient<float>(norm, max_norm);
}

}  // namespace shardstep
