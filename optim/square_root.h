// The square root as ATen's operator, with the bits that this process takes: IEEE's after
// UseIeeeRoots (kernels/dispatch.h), else at::sqrt's.
#ifndef SHARDSTEP_OPTIM_SQUARE_ROOT_H_
#define SHARDSTEP_OPTIM_SQUARE_ROOT_H_

#include <ATen/core/Tensor.h>
#include <ATen/ops/sqrt.h>

#include "shardstep/optim/kernels/dispatch.h"

namespace shardstep {

// Replaces the elements of `tensor`, contiguous and of float32 or float64, by their roots, and
// returns it. Safe from any thread; ATen's exceptions (memory) pass through.
inline at::Tensor SqrtInPlace(at::Tensor tensor) {
  if (const SqrtFunction<float> ieee = IeeeSqrtIfUsed<float>()) {
    if (tensor.scalar_type() == at::kFloat) {
      ieee(tensor.mutable_data_ptr<float>(), tensor.numel());
    } else {
      IeeeSqrtIfUsed<double>()(tensor.mutable_data_ptr<double>(), tensor.numel());
    }
    return tensor;
  }
  return at::sqrt_out(tensor, tensor);
}

// The same in fresh memory.
inline at::Tensor Sqrt(const at::Tensor& tensor) {
  return IeeeSqrtIfUsed<float>() != nullptr ? SqrtInPlace(tensor.clone()) : at::sqrt(tensor);
}

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_SQUARE_ROOT_H_
