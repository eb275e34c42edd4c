// SimClock: the clocks of one simulated server. The steady one, which the product goes by, runs a
// little fast or slow, and may jump ahead. The wall clock is set again and again, by much and by
// little, forwards and backwards.
#ifndef SHARDSTEP_TESTS_SIMULATION_SIM_CLOCK_H_
#define SHARDSTEP_TESTS_SIMULATION_SIM_CLOCK_H_

#include <cstdint>

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

  absl::Time Wall() const override {
    const absl::Duration age = Now() - absl::UnixEpoch();
    absl::Duration within;
    const int64_t round = absl::IDivDuration(age, kRound, &within);
    switch (round % 4) {
      case 0:
        return Now() + kFarOff;
      case 1:
        return Now() - kFarOff;
      case 2:  // in small steps
        return Now() + absl::Floor(within, kStepEvery) * kStepsAhead;
      default:
        return Now();
    }
  }

 private:
  static constexpr absl::Duration kRound = absl::Seconds(7);
  static constexpr absl::Duration kFarOff = absl::Hours(1);
  static constexpr absl::Duration kStepEvery = absl::Milliseconds(100);
  // By half a second each: far below a quarter of a lease.
  static constexpr int kStepsAhead = 5;

  const Simulation* const simulation_;
  const double rate_;
  absl::Duration offset_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_SIM_CLOCK_H_
