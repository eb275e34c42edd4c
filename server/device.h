// The seam between shards and the memory they lie in. Nothing outside these functions assumes that
// a shard is in the host's memory.
#ifndef SHARDSTEP_SERVER_DEVICE_H_
#define SHARDSTEP_SERVER_DEVICE_H_

#include <cstdint>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/sharding/dtype.h"

namespace shardstep {

// Of float32 or float64.
at::ScalarType ScalarTypeOf(DType dtype);

// A flat tensor of `elements` uninitialised elements (float32 or float64) in the host's memory,
// where frames arrive. RESOURCE_EXHAUSTED if there is no memory.
absl::StatusOr<at::Tensor> AllocateFlat(DType dtype, int64_t elements);
// The same of numbers of rows (int64).
absl::StatusOr<at::Tensor> AllocateRowNumbers(int64_t rows);
// The same of bytes, for what is not cut into elements yet.
absl::StatusOr<at::Tensor> AllocateBytes(int64_t bytes);

// The memory of a contiguous tensor in the host's memory. Valid as long as that is.
absl::string_view HostBytes(const at::Tensor& tensor);

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_DEVICE_H_
