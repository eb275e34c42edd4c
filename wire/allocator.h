// The settings of malloc that decide the throughput of the wire.
#ifndef SHARDSTEP_WIRE_ALLOCATOR_H_
#define SHARDSTEP_WIRE_ALLOCATOR_H_

namespace shardstep {

// Lets glibc's malloc keep freed memory instead of giving each receive buffer back to the kernel
// and faulting it in again: more than twice the throughput for large tensors, at the price of a
// process that shrinks late. Call it first in main, before another thread starts: a program decides
// this for itself, a library never for its host. Returns false where malloc is not glibc's (a
// sanitizer's, a preloaded one): nothing is set then, and nothing breaks.
bool ConfigureAllocator();

}  // namespace shardstep

#endif  // SHARDSTEP_WIRE_ALLOCATOR_H_
