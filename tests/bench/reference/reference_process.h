// ReferenceProcess: a process of tests/bench/reference:reference_server that a measurement runs.
//
// For one thread. Owns the process, which ends when this object goes or the thread that started it
// ends.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_REFERENCE_PROCESS_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_REFERENCE_PROCESS_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "shardstep/tests/bench/reference/transfer.h"
#include "shardstep/tests/child_process.h"

namespace shardstep {

class ReferenceProcess {
 public:
  // `kind` is the server's flag. Blocks until it listens, for a bounded time; an early end is an
  // error.
  static absl::StatusOr<std::unique_ptr<ReferenceProcess>> Start(const std::string& kind,
                                                                 const TransferWorkload& workload,
                                                                 bool sgd);
  // On 127.0.0.1.
  int port() const { return port_; }

 private:
  ReferenceProcess(std::unique_ptr<ChildProcess> child, int port)
      : child_(std::move(child)), port_(port) {}

  const std::unique_ptr<ChildProcess> child_;
  const int port_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_REFERENCE_PROCESS_H_
