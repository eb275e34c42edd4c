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

void Print(std::ostream& out, const Json& json) {
  out << json.dump(2, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) << "\n";
}

}  // namespace shardstep
