// ATen's memory on the host, for a process that makes and drops tensors of the same sizes for
// weeks.
//
// ATen aligns by posix_memalign, which asks malloc for more and gives back what is left over on
// both sides. Small blocks settle there, and what was freed is then too short for the next tensor
// of its size: memory grows. Here the space for aligning stays with the tensor, so that each fits
// where another of its size was.
#ifndef SHARDSTEP_SERVER_HOST_ALLOCATOR_H_
#define SHARDSTEP_SERVER_HOST_ALLOCATOR_H_

namespace shardstep {

// From now on all tensors on the host get their memory so, aligned to 64 bytes as ATen's own. Where
// there is none ATen throws, as ever. For main(), before the process has a second thread.
void UseHostAllocator();

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_HOST_ALLOCATOR_H_
