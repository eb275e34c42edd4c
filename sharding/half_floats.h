// Between float32, in which servers keep masters, and the 16-bit floats that parameters are
// declared and sent in.
//
// An element's result depends on that element alone, so any cut of a tensor gives the same bits.
// PyTorch's own conversions give the same numbers; of a NaN they give other bits at the end of a
// tensor than within it. Pure functions, safe from any thread.
#ifndef SHARDSTEP_SHARDING_HALF_FLOATS_H_
#define SHARDSTEP_SHARDING_HALF_FLOATS_H_

#include <cstdint>

#include "shardstep/sharding/dtype.h"

namespace shardstep {

// `dtype` is float16 or bfloat16: HasMaster says so. Memory of 16-bit elements need not be aligned,
// and does not overlap the other.

// `count` elements as float32. Exact; a NaN stays one.
void Widen(DType dtype, const char* from, int64_t count, float* to);

// `count` elements rounded to the nearest, of two equally near ones to the even one: what is too
// large becomes infinite, what is too small a denormal or zero. A NaN becomes the quiet one that
// at::BFloat16 (0x7fc0) and at::Half (0x7e00, and the sign) make of it.
void Narrow(DType dtype, const float* from, int64_t count, char* to);

}  // namespace shardstep

#endif  // SHARDSTEP_SHARDING_HALF_FLOATS_H_
