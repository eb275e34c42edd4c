#include <memory>
#include <string>

#include "shardstep/client/cli/progress_bar.h"
#include "shardstep/client/cli/table.h"
#include "shardstep/client/cli/verbs.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

struct Flags : FleetFlags {
  std::string name;
  std::string out;
  bool parameters_only = false;
};

absl::Status Run(const Flags& flags, std::ostream& out, std::ostream& err) {
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, ConnectToFleet(flags));
  SHARDSTEP_ASSIGN_OR_RETURN(OptimizerReader reader, client.OpenReader(flags.name));
  ProgressBar bar("state-dict", err);
  SaveOptions options;
  options.parameters_only = flags.parameters_only;
  options.progress = bar.callback();
  SHARDSTEP_ASSIGN_OR_RETURN(const SaveResult saved, reader.SaveStateDict(flags.out, options));
  bar.Clear();
  if (flags.json) {
    Print(out, {{"optimizer", flags.name},
                {"file", flags.out},
                {"version", saved.version},
                {"lineage", saved.lineage},
                {"bytes", saved.bytes}});
  } else {
    out << "wrote \"" << flags.out << "\": version " << saved.version << " of \"" << flags.name
        << "\", lineage " << saved.lineage << ", " << FormatBytes(saved.bytes) << "\n";
  }
  return absl::OkStatus();
}

}  // namespace

void AddStateDict(CLI::App* app, Context* context) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* const verb = AddVerb(app, "state-dict",
                                 "Writes the current version of an optimizer, parameters and "
                                 "state, into one safetensors file, while training goes on.",
                                 context, flags, Run);
  verb->add_option("name", flags->name, "The optimizer")->required();
  verb->add_option("--out", flags->out, "The file; replaced if it is there")->required();
  verb->add_flag("--parameters-only", flags->parameters_only,
                 "Only the parameters, under their plain names");
  AddFleetFlags(verb, flags.get());
}

}  // namespace shardstep
