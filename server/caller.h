// Caller: who waits for a reply.
#ifndef SHARDSTEP_SERVER_CALLER_H_
#define SHARDSTEP_SERVER_CALLER_H_

#include <functional>

#include "absl/time/time.h"

namespace shardstep {

struct Caller {
  // Before its deadline: a call that would wait longer is answered "not yet" at this time, on the
  // injected clock.
  absl::Time answer_by;
  // Its client is gone; a reply would reach nobody. Thread-safe, does not block.
  std::function<bool()> gone = [] { return false; };
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_CALLER_H_
