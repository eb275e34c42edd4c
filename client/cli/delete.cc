#include <memory>

#include "absl/strings/str_cat.h"
#include "shardstep/client/cli/verbs.h"
#include "shardstep/sharding/nearest_name.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

struct Flags : FleetFlags {
  std::string name;
  bool yes = false;
};

// From the list, since an optimizer that lost its shards cannot be described, but can be deleted.
absl::StatusOr<OptimizerSummary> Find(Client& client, const std::string& name) {
  SHARDSTEP_ASSIGN_OR_RETURN(const std::vector<OptimizerSummary> optimizers,
                             client.ListOptimizers());
  std::vector<std::string> names;
  for (const OptimizerSummary& optimizer : optimizers) {
    if (optimizer.name == name) return optimizer;
    names.push_back(optimizer.name);
  }
  const std::string nearest = NearestName(name, names);
  return absl::NotFoundError(
      absl::StrCat("optimizer \"", name, "\": not on this fleet",
                   nearest.empty() ? "" : absl::StrCat("; did you mean \"", nearest, "\"")));
}

absl::Status Run(const Flags& flags, std::ostream& out, std::ostream& /*err*/) {
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, ConnectToFleet(flags));
  SHARDSTEP_ASSIGN_OR_RETURN(const OptimizerSummary found, Find(client, flags.name));
  const std::string what = absl::StrCat(
      "optimizer \"", found.name, "\" (", found.kind, ", ", found.state, ", version ",
      found.version, ", ", found.parameters, " parameters of ", found.elements, " elements)");
  if (!flags.yes) {
    return absl::FailedPreconditionError(absl::StrCat(
        "would delete ", what, " with its state from all servers; pass --yes to do it"));
  }
  SHARDSTEP_RETURN_IF_ERROR(client.DeleteOptimizer(flags.name));
  if (flags.json) {
    Print(out, {{"deleted", found.name}, {"version", found.version}});
  } else {
    out << "deleted " << what << "\n";
  }
  return absl::OkStatus();
}

}  // namespace

void AddDelete(CLI::App* app, Context* context) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* const verb =
      AddVerb(app, "delete", "Deletes an optimizer, parameters and state, from all servers.",
              context, flags, Run);
  verb->add_option("name", flags->name, "The optimizer")->required();
  verb->add_flag("--yes", flags->yes,
                 "Do it; without this only says what would be deleted, and refuses");
  AddFleetFlags(verb, flags.get());
}

}  // namespace shardstep
