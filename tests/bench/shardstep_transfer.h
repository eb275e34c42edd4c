// shardstep's own transfers, for the comparison with others (transfer.h): one server process, the
// SDK in this one.
#ifndef SHARDSTEP_TESTS_BENCH_SHARDSTEP_TRANSFER_H_
#define SHARDSTEP_TESTS_BENCH_SHARDSTEP_TRANSFER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "shardstep/tests/bench/reference/transfer.h"

namespace shardstep {

// Push counts what the server has acknowledged; no step consumes it, the next push replaces it. A
// push holds half the window's tensors, and two are under way. Pull reads one version of all
// tensors, with as many readers as the window has times all tensors, but at least two, since a pull
// begins and ends with calls of its own. Used by one thread.
absl::StatusOr<std::unique_ptr<TransferSubject>> MakeShardstep(const TransferWorkload& workload);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_SHARDSTEP_TRANSFER_H_
