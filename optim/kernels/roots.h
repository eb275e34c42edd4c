// Square roots between the two passes of a kernel.
#ifndef SHARDSTEP_OPTIM_KERNELS_ROOTS_H_
#define SHARDSTEP_OPTIM_KERNELS_ROOTS_H_

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sqrt.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <cstdint>

#include "shardstep/optim/kernels/dispatch.h"

namespace shardstep {

// Scratch memory whose elements' roots are taken with this process's bits. For one thread.
template <typename T>
class Roots {
 public:
  // `sqrt`: what FindSqrt gave.
  explicit Roots(SqrtFunction<T> sqrt)
      : sqrt_(sqrt), scratch_(at::empty({size()}, c10::CppTypeToScalarType<T>::value)) {}

  // Elements that a part of a block should have: they stay in the first cache, or in the second
  // where a call of at::sqrt has to pay.
  int64_t size() const { return sqrt_ != nullptr ? 1 << 10 : 1 << 13; }

  T* data() { return scratch_.template mutable_data_ptr<T>(); }

  // Replaces the first `length` elements.
  void Take(int64_t length) {
    if (sqrt_ != nullptr) return sqrt_(data(), length);
    at::Tensor part = length == size() ? scratch_ : scratch_.narrow(0, 0, length);
    at::sqrt_out(part, part);
  }

 private:
  const SqrtFunction<T> sqrt_;
  const at::Tensor scratch_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_KERNELS_ROOTS_H_
