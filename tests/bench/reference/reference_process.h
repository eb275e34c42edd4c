// ReferenceProcess: a process of tests/bench/reference_server that a measurement runs.
//
// For one thread. Owns the process: it is killed and reaped with this object, and ends by itself
// when this process does.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_REFERENCE_PROCESS_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_REFERENCE_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "shardstep/tests/bench/reference/transfer.h"

namespace shardstep {

class ReferenceProcess {
 public:
  // `kind` is the server's flag. Blocks until it listens, for a bounded time; an early end is an
  // error.
  static absl::StatusOr<std::unique_ptr<ReferenceProcess>> Start(const std::string& kind,
                                                                 const TransferWorkload& workload,
                                                                 bool sgd);
  ~ReferenceProcess();
  ReferenceProcess(const ReferenceProcess&) = delete;
  ReferenceProcess& operator=(const ReferenceProcess&) = delete;

  pid_t pid() const { return pid_; }
  // On 127.0.0.1.
  int port() const { return port_; }

 private:
  ReferenceProcess(pid_t pid, int input) : pid_(pid), input_(input) {}

  const pid_t pid_;
  const int input_;  // the process lives no longer than it is open
  int port_ = 0;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_REFERENCE_PROCESS_H_
