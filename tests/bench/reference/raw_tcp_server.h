// The server of the raw TCP subject (raw_tcp.h). Owns its parameters and its threads.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_RAW_TCP_SERVER_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_RAW_TCP_SERVER_H_

#include <functional>

#include "absl/status/status.h"
#include "shardstep/tests/bench/reference/transfer.h"

namespace shardstep {

// Serves one client: the connections of its streams, until it closes them. Calls `listening` with
// the port. Blocks, without limit. With `sgd` pushed gradients are applied as they arrive, else
// they are only received. A pull reads parameters without a lock: beside a push, each element is
// that of before or after a step.
absl::Status ServeRawTcp(const TransferWorkload& workload, bool sgd,
                         const std::function<void(int port)>& listening);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_RAW_TCP_SERVER_H_
