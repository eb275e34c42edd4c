// The server of the textbook gRPC subject (textbook.h). Owns its parameters; gRPC has the threads.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_SERVER_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_SERVER_H_

#include <functional>

#include "absl/status/status.h"
#include "shardstep/tests/bench/reference/transfer.h"

namespace shardstep {

// With the callback API or the synchronous one. Calls `listening` with the port. Blocks, without
// end. With `sgd` pushed gradients are applied, else they are only received.
absl::Status ServeTextbook(bool callbacks, const TransferWorkload& workload, bool sgd,
                           const std::function<void(int port)>& listening);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_SERVER_H_
