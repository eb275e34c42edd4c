// Who may write a tensor's memory. Shard values, states and contributions are handed around as
// at::Tensor handles (a snapshot is a copy of handles), and memory that somebody else holds is
// never written: whoever would write it reads it and writes fresh memory.
#ifndef SHARDSTEP_OPTIM_BUFFERS_H_
#define SHARDSTEP_OPTIM_BUFFERS_H_

#include <ATen/core/Tensor.h>

namespace shardstep {

// True if `tensor` is the only handle of its tensor, and that tensor the only one on its memory.
// New handles must not be made meanwhile (they can only come from this one); other threads may drop
// theirs at any time.
inline bool IsSoleOwner(const at::Tensor& tensor) {
  if (tensor.use_count() != 1 || tensor.storage().use_count() != 1) return false;
  // The counts were read relaxed. Dropping a copy takes part, with acquire order, in the chain of
  // releases by those who have dropped theirs, so that their last reads come before our writes.
  const at::Tensor tensor_handle = tensor;               // NOLINT: the copy is the point
  const c10::Storage storage_handle = tensor.storage();  // NOLINT
  return true;
}

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_BUFFERS_H_
