#include "shardstep/client/cli/progress_bar.h"
#include "shardstep/client/cli/table.h"
#include "shardstep/client/cli/verbs.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

absl::Status Run(const CheckpointFlags& flags, std::ostream& out, std::ostream& err) {
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, ConnectToFleet(flags));
  ProgressBar bar("checkpoint", err);
  CheckpointOptions options;
  options.id = flags.id;
  options.progress = bar.callback();
  SHARDSTEP_ASSIGN_OR_RETURN(const CheckpointSummary made, client.Checkpoint(flags.name, options));
  bar.Clear();
  if (flags.json) {
    Print(out, {{"optimizer", flags.name},
                {"id", made.id},
                {"version", made.version},
                {"bytes", made.bytes}});
  } else {
    out << "checkpoint \"" << made.id << "\" of \"" << flags.name << "\": version " << made.version
        << ", " << FormatBytes(made.bytes) << "\n";
  }
  return absl::OkStatus();
}

}  // namespace

void AddCheckpoint(CLI::App* app, Context* context) {
  AddCheckpointVerb(app, "checkpoint",
                    "Writes the optimizer's current version into a new checkpoint, while training "
                    "goes on.",
                    "Name of the checkpoint (default: <lineage ordinal>-<version>)", context, Run);
}

}  // namespace shardstep
