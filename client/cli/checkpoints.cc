#include <memory>

#include "absl/strings/str_cat.h"
#include "shardstep/client/cli/table.h"
#include "shardstep/client/cli/verbs.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

struct Flags : FleetFlags {
  std::string name;
};

absl::Status Run(const Flags& flags, std::ostream& out, std::ostream& /*err*/) {
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, ConnectToFleet(flags));
  SHARDSTEP_ASSIGN_OR_RETURN(const std::vector<CheckpointSummary> checkpoints,
                             client.ListCheckpoints(flags.name));
  Json json = Json::array();
  Table table({"checkpoint", ">version", ">lineage", ">size", "made", "state"});
  for (const CheckpointSummary& checkpoint : checkpoints) {
    const char* const made = checkpoint.automatic ? "by schedule" : "on demand";
    if (!checkpoint.problem.empty()) {
      json.push_back({{"id", checkpoint.id}, {"problem", checkpoint.problem}});
      table.AddRow({checkpoint.id, "-", "-", "-", "-", checkpoint.problem});
      continue;
    }
    json.push_back({{"id", checkpoint.id},
                    {"version", checkpoint.version},
                    {"lineage", checkpoint.lineage},
                    {"bytes", checkpoint.bytes},
                    {"automatic", checkpoint.automatic},
                    {"problem", nullptr}});
    table.AddRow({checkpoint.id, absl::StrCat(checkpoint.version), absl::StrCat(checkpoint.lineage),
                  FormatBytes(checkpoint.bytes), made, "ok"});
  }
  if (flags.json) {
    Print(out, {{"optimizer", flags.name}, {"checkpoints", json}});
  } else {
    out << (checkpoints.empty() ? "no checkpoints\n" : table.ToString());
  }
  return absl::OkStatus();
}

}  // namespace

void AddCheckpoints(CLI::App* app, Context* context) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* const verb =
      AddVerb(app, "checkpoints",
              "Lists an optimizer's checkpoints, the oldest first; the optimizer need not be on "
              "the fleet.",
              context, flags, Run);
  verb->add_option("name", flags->name, "The optimizer")->required();
  AddFleetFlags(verb, flags.get());
}

}  // namespace shardstep
