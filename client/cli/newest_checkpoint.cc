#include "shardstep/client/cli/newest_checkpoint.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace shardstep {

absl::StatusOr<std::string> NewestCheckpoint(const std::string& optimizer,
                                             const std::vector<CheckpointSummary>& checkpoints) {
  const auto newest =
      std::find_if(checkpoints.rbegin(), checkpoints.rend(),
                   [](const CheckpointSummary& summary) { return summary.problem.empty(); });
  if (newest != checkpoints.rend()) return newest->id;
  return absl::NotFoundError(absl::StrCat(
      "optimizer \"", optimizer, "\": no checkpoint",
      checkpoints.empty() ? ""
                          : absl::StrCat(" that can be read, of ", checkpoints.size(),
                                         "; shardctl checkpoints ", optimizer, " says why")));
}

}  // namespace shardstep
