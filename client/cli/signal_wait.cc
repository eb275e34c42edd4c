#include "shardstep/client/cli/signal_wait.h"

#include <pthread.h>

#include <ctime>

namespace shardstep {

SignalWait::SignalWait() {
  sigemptyset(&awaited_);
  for (const int signal : {SIGINT, SIGTERM, SIGCHLD}) sigaddset(&awaited_, signal);
  pthread_sigmask(SIG_BLOCK, &awaited_, &before_);
}

SignalWait::~SignalWait() {
  // A second Ctrl-C that came while the servers were drained has had its effect.
  while (Wait(absl::ZeroDuration())) {
  }
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

bool SignalWait::Wait(absl::Duration timeout) {
  const timespec time = absl::ToTimespec(timeout);
  const int signal = sigtimedwait(&awaited_, nullptr, &time);
  return signal == SIGINT || signal == SIGTERM;
}

}  // namespace shardstep
