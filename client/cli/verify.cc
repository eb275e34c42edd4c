#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/client/cli/newest_checkpoint.h"
#include "shardstep/client/cli/progress_bar.h"
#include "shardstep/client/cli/verbs.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

absl::Status Run(const CheckpointFlags& flags, std::ostream& out, std::ostream& err) {
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, ConnectToFleet(flags));
  std::string id = flags.id;
  std::vector<std::string> problems;
  if (id.empty()) {
    SHARDSTEP_ASSIGN_OR_RETURN(const std::vector<CheckpointSummary> checkpoints,
                               client.ListCheckpoints(flags.name));
    SHARDSTEP_ASSIGN_OR_RETURN(id, NewestCheckpoint(flags.name, checkpoints));
    // One of them may be newer: its damage hides its age.
    for (const CheckpointSummary& checkpoint : checkpoints) {
      if (checkpoint.problem.empty()) continue;
      problems.push_back(absl::StrCat("checkpoint \"", checkpoint.id, "\": ", checkpoint.problem));
    }
  }
  ProgressBar bar("verify", err);
  SHARDSTEP_ASSIGN_OR_RETURN(std::vector<std::string> found,
                             client.VerifyCheckpoint(flags.name, id, bar.callback()));
  bar.Clear();
  for (std::string& problem : found) problems.push_back(std::move(problem));
  if (flags.json) {
    Print(out, {{"optimizer", flags.name}, {"id", id}, {"problems", problems}});
  } else {
    for (const std::string& problem : problems) out << problem << "\n";
    if (problems.empty()) {
      out << "checkpoint \"" << id << "\" of \"" << flags.name << "\": every byte as written\n";
    }
  }
  if (problems.empty()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("checkpoint \"", id, "\" of \"", flags.name,
                                          "\": ", problems.size(),
                                          problems.size() == 1 ? " problem" : " problems"));
}

}  // namespace

void AddVerify(CLI::App* app, Context* context) {
  AddCheckpointVerb(app, "verify",
                    "Reads every byte of a checkpoint, compares it with its checksums and says "
                    "what is wrong where. Exits with 1 if something is.",
                    "Which checkpoint (default: the newest, and a look at the others' manifests)",
                    context, Run);
}

}  // namespace shardstep
