#include "shardstep/sharding/tensor_view.h"

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace shardstep {

int64_t ConstTensorView::num_elements() const {
  return Validate().ok() ? NumElements(sizes).value_or(0) : 0;
}

int64_t ConstTensorView::num_bytes() const {
  return Validate().ok() ? NumBytes(sizes, dtype).value_or(0) : 0;
}

absl::Status ConstTensorView::Validate() const {
  const absl::StatusOr<int64_t> bytes = NumBytes(sizes, dtype);
  if (!bytes.ok()) return bytes.status();
  if (*bytes > 0 && data == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", ShapeToString(sizes), ": data is null"));
  }
  return absl::OkStatus();
}

}  // namespace shardstep
