// Shapes: the sizes of a tensor's dimensions, with arithmetic that cannot overflow.
#ifndef SHARDSTEP_SHARDING_SHAPE_H_
#define SHARDSTEP_SHARDING_SHAPE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "shardstep/sharding/dtype.h"

namespace shardstep {

using Shape = std::vector<int64_t>;

inline Shape ToShape(absl::Span<const int64_t> sizes) { return Shape(sizes.begin(), sizes.end()); }

inline constexpr int kMaxDims = 8;

// Elements of a tensor of these sizes: 1 without dimensions, 0 if any size is 0.
// INVALID_ARGUMENT: more than kMaxDims dimensions, a negative size, or sizes whose product
// (a 0 counted as 1) exceeds int64. So the strides of an accepted shape always fit int64, too.
absl::StatusOr<int64_t> NumElements(absl::Span<const int64_t> sizes);

// The same for sizes that it has accepted, and for those of a region in such a tensor.
int64_t ElementCount(absl::Span<const int64_t> sizes);

// Bytes of a dense tensor. Errors as NumElements, also when the bytes exceed int64 or `dtype` is
// no valid type.
absl::StatusOr<int64_t> NumBytes(absl::Span<const int64_t> sizes, DType dtype);

// "[128,64]"; "[]" without dimensions.
std::string ShapeToString(absl::Span<const int64_t> sizes);

}  // namespace shardstep

#endif  // SHARDSTEP_SHARDING_SHAPE_H_
