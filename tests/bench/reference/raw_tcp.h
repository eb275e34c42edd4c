// The raw TCP subject: the least that a transfer over loopback costs. Blocking system calls, one
// message for each tensor (a small header and the tensor's own memory), nothing copied in user
// space. Each stream has one connection for each direction, with one thread on each side.
//
// Thread safety, ownership and blocking are TransferSubject's.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_RAW_TCP_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_RAW_TCP_H_

#include <memory>

#include "absl/status/statusor.h"
#include "shardstep/tests/bench/reference/transfer.h"

namespace shardstep {

// A client with its server in a process of its own. Blocks until they are connected. Without `sgd`
// the server only receives what is pushed, and Check compares what it says it received, and
// unchanged parameters.
absl::StatusOr<std::unique_ptr<TransferSubject>> MakeRawTcp(const TransferWorkload& workload,
                                                            bool sgd);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_RAW_TCP_H_
