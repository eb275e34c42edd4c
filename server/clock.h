// Clock: the time that leases and deadlines are judged by; injected, so that tests and simulations
// drive it.
#ifndef SHARDSTEP_SERVER_CLOCK_H_
#define SHARDSTEP_SERVER_CLOCK_H_

#include <chrono>

#ifdef SHARDSTEP_FAULTS
#include "absl/time/clock.h"
#endif
#include "absl/time/time.h"

namespace shardstep {

// Monotonic: never goes back, and no change of the wall clock moves it. Only differences mean
// something. Implementations are thread-safe and do not block.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
#ifdef SHARDSTEP_FAULTS
  // The wall clock, for a mistake that tests make.
  virtual absl::Time Wall() const { return absl::Now(); }
#endif
};

class SteadyClock final : public Clock {
 public:
  absl::Time Now() const override {
    return absl::UnixEpoch() +
           absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
  }
};

// Stands still until a test moves it. Not thread-safe.
class FakeClock final : public Clock {
 public:
  absl::Time Now() const override { return now_; }
  void Advance(absl::Duration by) { now_ += by; }

 private:
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_CLOCK_H_
