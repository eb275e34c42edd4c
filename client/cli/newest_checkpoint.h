// Which checkpoint a verb means that names none.
#ifndef SHARDSTEP_CLIENT_CLI_NEWEST_CHECKPOINT_H_
#define SHARDSTEP_CLIENT_CLI_NEWEST_CHECKPOINT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "shardstep/client/checkpoints.h"

namespace shardstep {

// The id of the newest of `checkpoints`, the list of `optimizer`'s with the oldest first, that can
// be read. NOT_FOUND: there is none.
absl::StatusOr<std::string> NewestCheckpoint(const std::string& optimizer,
                                             const std::vector<CheckpointSummary>& checkpoints);

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_CLI_NEWEST_CHECKPOINT_H_
