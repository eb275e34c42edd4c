// Tensors as flat ones, and ranges of these. A view costs several allocations, which for a small
// tensor is more than its update: where the tensor is already what is asked for, it is given back.
// So the result may be the same handle: its sizes must not be changed, and who is a tensor's sole
// owner (buffers.h) is to be asked before.
#ifndef SHARDSTEP_OPTIM_FLAT_H_
#define SHARDSTEP_OPTIM_FLAT_H_

#include <ATen/core/Tensor.h>

#include "shardstep/optim/blocks.h"

namespace shardstep {

// All elements of a contiguous tensor.
inline at::Tensor Flat(const at::Tensor& tensor) {
  return tensor.dim() == 1 ? tensor : tensor.view(-1);
}

// Those of `range`; undefined if `flat` is.
inline at::Tensor PartOf(const at::Tensor& flat, const BlockRange& range) {
  if (!flat.defined() || range.length == flat.numel()) return flat;
  return flat.narrow(0, range.begin, range.length);
}

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_FLAT_H_
