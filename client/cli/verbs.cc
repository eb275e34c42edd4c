#include "shardstep/client/cli/verbs.h"

namespace shardstep {

void AddFleetFlags(CLI::App* verb, FleetFlags* flags) {
  verb->add_option("--fleet", flags->fleet, "Fleet file, or host:port of any server of the fleet")
      ->envname("SHARDSTEP_FLEET")
      ->capture_default_str();
  AddJsonFlag(verb, &flags->json);
}

void AddJsonFlag(CLI::App* verb, bool* json) {
  verb->add_flag("--json", *json, "Print JSON, for scripts");
}

absl::StatusOr<Client> ConnectToFleet(const FleetFlags& flags, const ClientOptions& options) {
  absl::StatusOr<Client> client = Client::Connect(flags.fleet, options);
  if (absl::IsNotFound(client.status())) return absl::UnavailableError(client.status().message());
  return client;
}

void AddCheckpointVerb(CLI::App* app, const std::string& name, const std::string& description,
                       const std::string& id_description, Context* context,
                       absl::Status (*run)(const CheckpointFlags& flags, std::ostream& out,
                                           std::ostream& err)) {
  const auto flags = std::make_shared<CheckpointFlags>();
  CLI::App* const verb = AddVerb(app, name, description, context, flags, run);
  verb->add_option("name", flags->name, "The optimizer")->required();
  verb->add_option("--id", flags->id, id_description);
  AddFleetFlags(verb, flags.get());
}

void Print(std::ostream& out, const Json& json) {
  out << json.dump(2, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) << "\n";
}

}  // namespace shardstep
