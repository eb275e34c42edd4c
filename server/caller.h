// Caller: who waits for a reply.
#ifndef SHARDSTEP_SERVER_CALLER_H_
#define SHARDSTEP_SERVER_CALLER_H_

#include <algorithm>
#include <functional>

#include "absl/time/time.h"

namespace shardstep {

// When a call is to be answered that ends after `remaining`: it needs some of that on its way back.
inline absl::Time AnswerBy(absl::Time now, absl::Duration remaining) {
  return now + remaining - std::min(absl::Seconds(1), remaining / 5);
}

struct Caller {
  // Before its deadline: a call that would wait longer is answered "not yet" at this time, on the
  // injected clock.
  absl::Time answer_by;
  // Its client is gone; a reply would reach nobody. Thread-safe, does not block.
  std::function<bool()> gone = [] { return false; };
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_CALLER_H_
