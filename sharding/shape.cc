#include "shardstep/sharding/shape.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {

absl::StatusOr<int64_t> NumElements(absl::Span<const int64_t> sizes) {
  if (sizes.size() > kMaxDims) {
    return absl::InvalidArgumentError(
        absl::StrCat("shape has ", sizes.size(), " dimensions, expected at most ", kMaxDims));
  }
  int64_t extent = 1;
  bool empty = false;
  for (int64_t size : sizes) {
    if (size < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape ", ShapeToString(sizes), ": negative size ", size));
    }
    if (size == 0) empty = true;
    if (__builtin_mul_overflow(extent, std::max<int64_t>(size, 1), &extent)) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape ", ShapeToString(sizes), ": number of elements exceeds 64 bits"));
    }
  }
  return empty ? 0 : extent;
}

int64_t ElementCount(absl::Span<const int64_t> sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

absl::StatusOr<int64_t> NumBytes(absl::Span<const int64_t> sizes, DType dtype) {
  const int64_t item_size = ItemSize(dtype);
  if (item_size == 0) return absl::InvalidArgumentError("dtype: invalid");
  SHARDSTEP_ASSIGN_OR_RETURN(const int64_t elements, NumElements(sizes));
  int64_t bytes = 0;
  if (__builtin_mul_overflow(elements, item_size, &bytes)) {
    return absl::InvalidArgumentError(absl::StrCat("shape ", ShapeToString(sizes), " of ",
                                                   DTypeName(dtype), ": bytes exceed 64 bits"));
  }
  return bytes;
}

std::string ShapeToString(absl::Span<const int64_t> sizes) {
  return absl::StrCat("[", absl::StrJoin(sizes, ","), "]");
}

}  // namespace shardstep
