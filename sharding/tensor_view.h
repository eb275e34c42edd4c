// Views of dense tensors in memory that somebody else owns: what the client takes and fills.
//
// A view is plain data: pointer, element type and sizes, row-major and without gaps. It borrows:
// the memory must outlive every use, and whoever takes a view says until when it must not change.
// Views have no invariant of their own; a receiver calls Validate() before it touches `data`.
#ifndef SHARDSTEP_SHARDING_TENSOR_VIEW_H_
#define SHARDSTEP_SHARDING_TENSOR_VIEW_H_

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "shardstep/sharding/dtype.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {

// A tensor to read from.
struct ConstTensorView {
  const void* data = nullptr;
  DType dtype = DType::kInvalid;
  Shape sizes;

  // Elements and bytes; 0 where Validate() fails.
  int64_t num_elements() const;
  int64_t num_bytes() const;

  // INVALID_ARGUMENT: dtype or sizes are invalid (see NumBytes), or data is null though the tensor
  // has elements.
  absl::Status Validate() const;
};

// A tensor to write to. Passes wherever a ConstTensorView is taken.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kInvalid;
  Shape sizes;

  operator ConstTensorView() const { return {data, dtype, sizes}; }  // NOLINT: meant to be implicit

  // As ConstTensorView's.
  int64_t num_elements() const { return ConstTensorView(*this).num_elements(); }
  int64_t num_bytes() const { return ConstTensorView(*this).num_bytes(); }
  absl::Status Validate() const { return ConstTensorView(*this).Validate(); }
};

// A view of `data`, which holds as many elements as `sizes` say: MakeTensorView(w.data(), {10, 4}).
inline TensorView MakeTensorView(float* data, Shape sizes) {
  return {data, DType::kFloat32, std::move(sizes)};
}
inline TensorView MakeTensorView(double* data, Shape sizes) {
  return {data, DType::kFloat64, std::move(sizes)};
}
inline ConstTensorView MakeTensorView(const float* data, Shape sizes) {
  return {data, DType::kFloat32, std::move(sizes)};
}
inline ConstTensorView MakeTensorView(const double* data, Shape sizes) {
  return {data, DType::kFloat64, std::move(sizes)};
}

}  // namespace shardstep

#endif  // SHARDSTEP_SHARDING_TENSOR_VIEW_H_
