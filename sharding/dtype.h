// Element types of tensors, with PyTorch's names.
#ifndef SHARDSTEP_SHARDING_DTYPE_H_
#define SHARDSTEP_SHARDING_DTYPE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shardstep {

// The numbers enter plan ids and files: they never change, new types come last.
enum class DType : uint8_t {
  kInvalid = 0,
  kFloat32 = 1,
  kFloat64 = 2,
  kFloat16 = 3,
  kBFloat16 = 4,
  kInt8 = 5,
  kUInt8 = 6,
  kInt16 = 7,
  kInt32 = 8,
  kInt64 = 9,
  kBool = 10,
  kComplex64 = 11,
  kComplex128 = 12,
};

// Bytes of one element; 0 for kInvalid and for any number that is no DType.
int64_t ItemSize(DType dtype);

// PyTorch's name without its "torch." prefix, e.g. "bfloat16"; "invalid" where ItemSize is 0.
absl::string_view DTypeName(DType dtype);

// What servers keep the values, gradients and state of a parameter of `dtype` in, and compute with:
// its master dtype. float32 for float16 and bfloat16, else `dtype` itself.
DType MasterDType(DType dtype);
// Whether the two differ: the parameter has a master of its own.
inline bool HasMaster(DType dtype) { return MasterDType(dtype) != dtype; }

// The inverse of DTypeName. INVALID_ARGUMENT, listing the known names, for any other text.
absl::StatusOr<DType> ParseDType(absl::string_view name);

}  // namespace shardstep

#endif  // SHARDSTEP_SHARDING_DTYPE_H_
