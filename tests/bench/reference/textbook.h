// The textbook gRPC subject: a transfer as an introduction to gRPC would write it. Generated stubs,
// one bidirectional stream for each direction, tensors as protobuf `bytes` in messages of 1 MiB at
// most, the allocator as the process has it. Each stream of the workload has a connection.
//
// Thread safety, ownership and blocking are TransferSubject's.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_H_

#include <memory>

#include "absl/status/statusor.h"
#include "shardstep/tests/bench/reference/transfer.h"

namespace shardstep {

// A client with the callback API or the synchronous one, and a server with the same in a process of
// its own. Blocks until they are connected. Without `sgd` the server only receives what is pushed.
absl::StatusOr<std::unique_ptr<TransferSubject>> MakeTextbook(const TransferWorkload& workload,
                                                              bool callbacks, bool sgd);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_H_
