// The gradient norm over any number of shards, and the clip coefficient that follows from it.
//
// Squares are summed in compensated float64: hi + lo carries about twice the digits of a double, so
// that the sum, once rounded, does not depend on how the elements were cut into shards. PyTorch's
// own norm sums in float32 and lies up to 8e-5 (relative, at 4 Mi elements) from the true value and
// so from this one. Pure functions of plain numbers, safe from any thread; no ATen.
#ifndef SHARDSTEP_OPTIM_SQUARED_NORM_H_
#define SHARDSTEP_OPTIM_SQUARED_NORM_H_

#include <cstdint>

#include "absl/types/span.h"

namespace shardstep {

// An unevaluated sum hi + lo with |lo| at most half a unit in the last place of hi. Where hi is
// infinite or NaN, lo is 0.
struct SquaredNorm {
  double hi = 0;
  double lo = 0;
};

inline bool operator==(const SquaredNorm& a, const SquaredNorm& b) {
  return a.hi == b.hi && a.lo == b.lo;
}

// The sum of squares of `values`, taken in element order, and whether all of them are finite (the
// squares of finite float64 values may still overflow to infinity).
struct BlockNorm {
  SquaredNorm squares;
  bool finite = true;
};
BlockNorm MeasureBlock(absl::Span<const float> values);
BlockNorm MeasureBlock(absl::Span<const double> values);

// The sum of two. Add in one agreed order: blocks by element, shards by plan.
SquaredNorm Sum(const SquaredNorm& a, const SquaredNorm& b);

// The square root, rounded to float32 unless `float64` (which it is if any parameter is float64).
double Norm(const SquaredNorm& squares, bool float64);

// min(1, max_norm / (norm + 1e-6)), computed in float32 unless `float64`: the factor that
// torch.nn.utils.clip_grad_norm_ multiplies every gradient with, also where it is 1. 0 for an
// infinite norm, NaN for NaN.
double ClipCoefficient(double norm, double max_norm, bool float64);

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_SQUARED_NORM_H_
