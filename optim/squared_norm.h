// The gradient norm over any number of shards, and the clip coefficient that follows from it.
//
// PyTorch's own norm sums in float32 and lies up to 8e-5 (relative, at 4 Mi elements) from the true
// value and so from this one. Pure functions of plain numbers, safe from any thread; no ATen.
#ifndef SHARDSTEP_OPTIM_SQUARED_NORM_H_
#define SHARDSTEP_OPTIM_SQUARED_NORM_H_

#include <cstdint>

#include "absl/types/span.h"
#include "shardstep/optim/compensated_sum.h"
#include "shardstep/optim/kernels/norm_kernels.h"

namespace shardstep {

using SquaredNorm = CompensatedSum;

// The sum of squares of `values`, taken in element order, and whether all of them are finite (the
// squares of finite float64 values may still overflow to infinity).
struct BlockNorm {
  SquaredNorm squares;
  bool finite = true;
};
BlockNorm MeasureBlock(absl::Span<const float> values);
BlockNorm MeasureBlock(absl::Span<const double> values);

// The same of a block that comes in parts, each but the last of a multiple of kNormLanes values.
// Confined to one thread at a time.
class BlockMeter {
 public:
  void Add(absl::Span<const float> values);
  void Add(absl::Span<const double> values);
  BlockNorm Finish() const;

 private:
  NormLanes lanes_;
  bool finite_ = true;
};

// The square root, rounded to float32 unless `float64` (which it is if any parameter is float64).
double Norm(const SquaredNorm& squares, bool float64);

// min(1, max_norm / (norm + 1e-6)), computed in float32 unless `float64`: the factor that
// torch.nn.utils.clip_grad_norm_ multiplies every gradient with, also where it is 1. 0 for an
// infinite norm, NaN for NaN.
double ClipCoefficient(double norm, double max_norm, bool float64);

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_SQUARED_NORM_H_
