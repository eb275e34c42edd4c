// The sum of squares of one block (squared_norm.h) by hand, compiled for one kind of CPU.
#ifndef SHARDSTEP_OPTIM_KERNELS_NORM_KERNELS_H_
#define SHARDSTEP_OPTIM_KERNELS_NORM_KERNELS_H_

#include <cstdint>

namespace shardstep {

// Partial sums of a block: those of elements 0, 8, ..., of elements 1, 9, ..., and so on. The
// number is part of the definition of a block's sum.
inline constexpr int kNormLanes = 8;

struct NormLanes {
  double hi[kNormLanes] = {};
  double lo[kNormLanes] = {};
};

namespace AVX2 {

// Adds the squares of `length` values, a multiple of kNormLanes, to `lanes`, as TwoSum does one by
// one. Returns whether all values are finite. Safe from any thread, on a CPU that has AVX2.
bool AddSquares(const float* values, int64_t length, NormLanes* lanes);

}  // namespace AVX2
namespace AVX512 {

// The same, with the same bits, on a CPU that has AVX-512 (F, BW, DQ, VL).
bool AddSquares(const float* values, int64_t length, NormLanes* lanes);

}  // namespace AVX512
}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_KERNELS_NORM_KERNELS_H_
