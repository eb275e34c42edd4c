// Doubles on their way into ATen operators on float32 or float64 tensors.
#ifndef SHARDSTEP_OPTIM_SCALARS_H_
#define SHARDSTEP_OPTIM_SCALARS_H_

#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>

namespace shardstep {

// `value`, rounded once to `dtype`. Handed to an operator as it is, a double beyond float32's range
// makes ATen throw; here it becomes infinite, as it would in arithmetic.
inline at::Scalar RoundedScalar(double value, at::ScalarType dtype) {
  if (dtype == at::kFloat) return static_cast<double>(static_cast<float>(value));
  return value;
}

// The same as a tensor without dimensions, for operators whose out variant takes no scalar.
inline at::Tensor ScalarTensor(double value, at::ScalarType dtype) {
  return at::full({}, RoundedScalar(value, dtype), at::TensorOptions().dtype(dtype));
}

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_SCALARS_H_
