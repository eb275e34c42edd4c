// What memory alone allows: the same tensors copied, or stepped, by threads of this process.
//
// Thread-safe. Blocks for about the duration; tensors are made for the call and freed.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_MEMORY_REFERENCE_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_MEMORY_REFERENCE_H_

#include "absl/time/time.h"
#include "shardstep/tests/bench/reference/transfer.h"

namespace shardstep {

// Bytes copied per second, from distinct tensors into distinct tensors in turn: cold if together
// they are larger than the caches. At least one thread; each has its own tensors. 0: the workload
// is not valid.
double MemcpyBytesPerSecond(const TransferWorkload& workload, absl::Duration duration, int threads);

// Bytes of gradients applied per second: p -= lr * g, one step of each tensor in turn.
double SgdBytesPerSecond(const TransferWorkload& workload, absl::Duration duration, int threads);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_MEMORY_REFERENCE_H_
