#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "shardstep/client/cli/fleet_status.h"
#include "shardstep/client/cli/local_fleet.h"
#include "shardstep/client/cli/server_process.h"
#include "shardstep/client/cli/signal_wait.h"
#include "shardstep/client/cli/verbs.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/fleet_file.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep {
namespace {

constexpr absl::Duration kStartTimeout = absl::Seconds(60);
constexpr absl::Duration kStatusTimeout = absl::Seconds(2);

struct Flags {
  int servers = 0;
  std::string dir;
  std::string name = "local";
  std::string server_binary;
  bool detach = false;
  bool json = false;
};

absl::StatusOr<std::string> ServerBinary(const Flags& flags) {
  if (flags.server_binary.empty()) return FindServerBinary();
  if (access(flags.server_binary.c_str(), X_OK) == 0) return flags.server_binary;
  return absl::NotFoundError(
      absl::StrCat("--server-binary \"", flags.server_binary, "\": not a program"));
}

// Gives the servers each other's addresses, waits until they serve, and shows them.
absl::Status Assemble(const Flags& flags, LocalFleet& fleet, std::ostream& out) {
  FleetFile file;
  file.name = flags.name;
  SHARDSTEP_ASSIGN_OR_RETURN(file.servers, fleet.WaitForAddresses(kStartTimeout));
  FleetFlags fleet_flags;
  fleet_flags.fleet = FleetFilePath(flags.dir);
  fleet_flags.json = flags.json;
  SHARDSTEP_RETURN_IF_ERROR(file.Write(fleet_flags.fleet));

  ClientOptions options;
  options.connect_timeout = absl::ZeroDuration();
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, ConnectToFleet(fleet_flags, options));
  std::optional<FleetStatus> status;
  const auto all_serve = [&]() -> absl::Status {
    SHARDSTEP_ASSIGN_OR_RETURN(status, client.GetFleetStatus(kStatusTimeout));
    return AllServing(*status);
  };
  SHARDSTEP_RETURN_IF_ERROR(fleet.WaitUntil(all_serve, kStartTimeout));
  PrintFleetStatus(*status, fleet_flags, out);
  out.flush();
  return absl::OkStatus();
}

absl::Status Run(const Flags& flags, std::ostream& out, std::ostream& err) {
  SHARDSTEP_RETURN_IF_ERROR(ValidateIdentifier("fleet", flags.name));
  SHARDSTEP_ASSIGN_OR_RETURN(const std::string binary, ServerBinary(flags));
  SignalWait signals;
  SHARDSTEP_ASSIGN_OR_RETURN(LocalFleet fleet,
                             LocalFleet::Start(binary, flags.dir, flags.servers, &signals));
  absl::Status status = Assemble(flags, fleet, out);
  if (status.ok() && flags.detach) {
    fleet.Detach();
    return status;
  }
  if (status.ok()) {
    err << "shardctl: Ctrl-C stops the fleet; clients: export SHARDSTEP_FLEET="
        << FleetFilePath(flags.dir) << std::endl;
    status = fleet.Watch(err);
  }
  fleet.Stop(err);
  return status;
}

}  // namespace

void AddFleetUp(CLI::App* fleet, Context* context) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* const verb = AddVerb(fleet, "up",
                                 "Starts a fleet on this machine, on free ports of the loopback "
                                 "interface, and stops it at Ctrl-C.",
                                 context, flags, Run);
  verb->add_option("--servers", flags->servers, "How many servers")
      ->required()
      ->check(CLI::Range(1, static_cast<int>(kMaxServers)));
  verb->add_option(
          "--dir", flags->dir,
          "Folder for the fleet file (DIR/fleet.json) and each server's data, address and log "
          "(DIR/server-RANK/); made if it is missing")
      ->required();
  verb->add_option("--name", flags->name, "Name of the fleet")->capture_default_str();
  verb->add_option("--server-binary", flags->server_binary,
                   "The program shardstep-server (default: the one beside this program)");
  verb->add_flag("--detach", flags->detach,
                 "Return once all servers serve, and leave them running");
  AddJsonFlag(verb, &flags->json);
}

}  // namespace shardstep
