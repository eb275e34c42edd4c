// Random: the one source of chance of a simulated run. The same seed gives the same numbers on
// every machine and with every standard library.
#ifndef SHARDSTEP_TESTS_SIMULATION_RANDOM_H_
#define SHARDSTEP_TESTS_SIMULATION_RANDOM_H_

#include <cstdint>
#include <random>

#include "absl/time/time.h"

namespace shardstep {

// Not thread-safe.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  uint64_t Next() { return engine_(); }
  // In [0, end); `end` is above 0 and far below 2^64, so that the remainder's bias does not matter.
  uint64_t Below(uint64_t end) { return engine_() % end; }
  // True with this probability.
  bool Chance(double probability) {
    return static_cast<double>(engine_() >> 11) * 0x1.0p-53 < probability;
  }
  // In [low, high), in whole microseconds.
  absl::Duration Between(absl::Duration low, absl::Duration high) {
    const int64_t range = absl::ToInt64Microseconds(high - low);
    return range <= 0 ? low : low + absl::Microseconds(Below(range));
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_RANDOM_H_
