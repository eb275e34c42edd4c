// Waiting for signals instead of being interrupted by them: while a SignalWait exists, SIGINT,
// SIGTERM and SIGCHLD reach the process through Wait alone. One at a time, made before the process
// has a second thread (threads inherit the mask).
#ifndef SHARDSTEP_CLIENT_CLI_SIGNAL_WAIT_H_
#define SHARDSTEP_CLIENT_CLI_SIGNAL_WAIT_H_

#include <csignal>

#include "absl/time/time.h"

namespace shardstep {

class SignalWait {
 public:
  SignalWait();
  ~SignalWait();
  SignalWait(const SignalWait&) = delete;
  SignalWait& operator=(const SignalWait&) = delete;

  // Blocks until a signal arrives, `timeout` at most. True if the user asks to stop (SIGINT,
  // SIGTERM).
  bool Wait(absl::Duration timeout);

 private:
  sigset_t awaited_;
  sigset_t before_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_CLI_SIGNAL_WAIT_H_
