// SimClock: the clock of one simulated server: it runs a little fast or slow, and may jump ahead.
#ifndef SHARDSTEP_TESTS_SIMULATION_SIM_CLOCK_H_
#define SHARDSTEP_TESTS_SIMULATION_SIM_CLOCK_H_

#include "absl/time/time.h"
#include "shardstep/server/clock.h"
#include "shardstep/tests/simulation/simulation.h"

namespace shardstep {

class SimClock final : public Clock {
 public:
  // `simulation` must outlive it.
  SimClock(const Simulation* simulation, double rate, absl::Duration offset)
      : simulation_(simulation), rate_(rate), offset_(offset) {}

  absl::Time Now() const override {
    return absl::UnixEpoch() + (simulation_->now() - absl::UnixEpoch()) * rate_ + offset_;
  }
  void Jump(absl::Duration ahead) { offset_ += ahead; }

 private:
  const Simulation* const simulation_;
  const double rate_;
  absl::Duration offset_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_SIM_CLOCK_H_
