// Eventually: waits for what another thread or process brings about.
#ifndef SHARDSTEP_TESTS_EVENTUALLY_H_
#define SHARDSTEP_TESTS_EVENTUALLY_H_

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace shardstep {

// Whether `condition` became true. Asks again and again, for `patience` at most; how long that is
// decides only how late a failure is seen.
template <typename Condition>
bool Eventually(Condition&& condition, absl::Duration patience = absl::Seconds(30)) {
  const absl::Time deadline = absl::Now() + patience;
  while (!condition()) {
    if (absl::Now() >= deadline) return false;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return true;
}

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_EVENTUALLY_H_
