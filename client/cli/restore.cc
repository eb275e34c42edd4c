#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "shardstep/client/cli/newest_checkpoint.h"
#include "shardstep/client/cli/progress_bar.h"
#include "shardstep/client/cli/verbs.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

absl::Status Run(const CheckpointFlags& flags, std::ostream& out, std::ostream& err) {
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, ConnectToFleet(flags));
  std::string id = flags.id;
  if (id.empty()) {
    SHARDSTEP_ASSIGN_OR_RETURN(const std::vector<CheckpointSummary> checkpoints,
                               client.ListCheckpoints(flags.name));
    SHARDSTEP_ASSIGN_OR_RETURN(id, NewestCheckpoint(flags.name, checkpoints));
  }
  ProgressBar bar("restore", err);
  RestoreOptions options;
  options.progress = bar.callback();
  SHARDSTEP_ASSIGN_OR_RETURN(const RestoreResult restored, client.Restore(flags.name, id, options));
  bar.Clear();
  if (flags.json) {
    Print(out, {{"optimizer", flags.name},
                {"id", id},
                {"version", restored.version},
                {"lineage", restored.lineage},
                {"placed_anew", restored.placed_anew}});
    return absl::OkStatus();
  }
  out << "restored \"" << flags.name << "\" from checkpoint \"" << id << "\": version "
      << restored.version << ", lineage " << restored.lineage << "\n";
  if (!restored.placed_anew.empty()) {
    out << "placed anew, because their servers are not in this fleet: "
        << absl::StrJoin(restored.placed_anew, ", ") << "\n";
  }
  return absl::OkStatus();
}

}  // namespace

void AddRestore(CLI::App* app, Context* context) {
  AddCheckpointVerb(app, "restore",
                    "Makes an optimizer stand as a checkpoint has it, under a new lineage, on "
                    "whatever servers the fleet has; makes it anew where it is missing.",
                    "Which checkpoint (default: the newest that can be read)", context, Run);
}

}  // namespace shardstep
