#include "shardstep/server/device.h"

#include <exception>

#include "ATen/EmptyTensor.h"
#include "absl/strings/str_cat.h"

namespace shardstep {
namespace {

absl::StatusOr<at::Tensor> Allocate(int64_t elements, at::ScalarType type, absl::string_view what) {
  // ATen reports a failed allocation by an exception.
  try {
    // at::empty without its way through the dispatcher, which takes longer than a small buffer.
    return at::Tensor(at::detail::empty_cpu({elements}, type));
  } catch (const std::exception&) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", elements, what));
  }
}

}  // namespace

at::ScalarType ScalarTypeOf(DType dtype) {
  return dtype == DType::kFloat64 ? at::kDouble : at::kFloat;
}

absl::StatusOr<at::Tensor> AllocateFlat(DType dtype, int64_t elements) {
  return Allocate(elements, ScalarTypeOf(dtype), absl::StrCat(" elements of ", DTypeName(dtype)));
}

absl::StatusOr<at::Tensor> AllocateRowNumbers(int64_t rows) {
  return Allocate(rows, at::kLong, " numbers of rows");
}

absl::StatusOr<at::Tensor> AllocateBytes(int64_t bytes) {
  return Allocate(bytes, at::kByte, " bytes");
}

absl::string_view HostBytes(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.data_ptr()), static_cast<size_t>(tensor.nbytes())};
}

}  // namespace shardstep
