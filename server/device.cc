#include "shardstep/server/device.h"

#include <exception>

#include "ATen/ops/empty.h"
#include "absl/strings/str_cat.h"

namespace shardstep {

absl::StatusOr<at::Tensor> AllocateFlat(DType dtype, int64_t elements) {
  // ATen reports a failed allocation by an exception.
  try {
    return at::empty({elements}, dtype == DType::kFloat64 ? at::kDouble : at::kFloat);
  } catch (const std::exception&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for ", elements, " elements of ", DTypeName(dtype)));
  }
}

}  // namespace shardstep
