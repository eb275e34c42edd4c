// What goes into a client's checkpoint calls, and what comes out. Plain data.
#ifndef SHARDSTEP_CLIENT_CHECKPOINTS_H_
#define SHARDSTEP_CLIENT_CHECKPOINTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "shardstep/client/state_dict.h"

namespace shardstep {

struct CheckpointOptions {
  // As an optimizer's name; empty: "<lineage ordinal>-<version>".
  std::string id;
  absl::Duration timeout = absl::Hours(1);
  Progress progress;
};

// One checkpoint: made, or in a list.
struct CheckpointSummary {
  std::string id;
  uint64_t version = 0;
  uint64_t bytes = 0;
  // In a list only.
  uint64_t lineage = 0;
  // Made by the servers' own schedule, and removed by it.
  bool automatic = false;
  // Why it cannot be read; empty: it can.
  std::string problem;
};

struct RestoreOptions {
  absl::Duration timeout = absl::Hours(1);
  Progress progress;
};

struct RestoreResult {
  uint64_t version = 0;
  uint64_t lineage = 0;
  // Parameters that the planner placed, because their spec names a server that the fleet has not.
  std::vector<std::string> placed_anew;
};

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_CHECKPOINTS_H_
