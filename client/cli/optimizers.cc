#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/client/cli/table.h"
#include "shardstep/client/cli/verbs.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

absl::Status Run(const FleetFlags& flags, std::ostream& out, std::ostream& /*err*/) {
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, ConnectToFleet(flags));
  SHARDSTEP_ASSIGN_OR_RETURN(const std::vector<OptimizerSummary> optimizers,
                             client.ListOptimizers());
  Json json = Json::array();
  Table table({"name", "kind", "mode", ">version", ">durable", ">lineage", ">parameters",
               ">elements", ">shards", "state"});
  for (const OptimizerSummary& optimizer : optimizers) {
    const std::string mode = optimizer.mode ? ToString(*optimizer.mode) : "";
    json.push_back({{"name", optimizer.name},
                    {"kind", optimizer.kind},
                    {"mode", mode},
                    {"version", optimizer.version},
                    {"durable_version", optimizer.durable_version},
                    {"lineage", optimizer.lineage},
                    {"parameters", optimizer.parameters},
                    {"elements", optimizer.elements},
                    {"shards", optimizer.shards},
                    {"state", optimizer.state}});
    table.AddRow({optimizer.name, optimizer.kind, mode, absl::StrCat(optimizer.version),
                  absl::StrCat(optimizer.durable_version), absl::StrCat(optimizer.lineage),
                  absl::StrCat(optimizer.parameters), absl::StrCat(optimizer.elements),
                  absl::StrCat(optimizer.shards), optimizer.state});
  }
  if (flags.json) {
    Print(out, {{"optimizers", json}});
  } else {
    out << (optimizers.empty() ? "no optimizers\n" : table.ToString());
  }
  return absl::OkStatus();
}

}  // namespace

void AddOptimizers(CLI::App* app, Context* context) {
  const auto flags = std::make_shared<FleetFlags>();
  AddFleetFlags(AddVerb(app, "optimizers", "Lists the fleet's optimizers.", context, flags, Run),
                flags.get());
}

}  // namespace shardstep
