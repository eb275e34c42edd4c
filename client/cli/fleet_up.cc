#include <unistd.h>

#include <filesystem>
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
  std::string durability = "checkpoint";
  std::string checkpoints;
  std::string server_binary;
  // Flags of the servers.
  std::string checkpoint_interval;
  std::string keep_last;
  std::string log_size;
  std::string numerics;
  bool detach = false;
  bool json = false;
};

absl::StatusOr<std::string> ServerBinary(const Flags& flags) {
  if (flags.server_binary.empty()) return FindServerBinary();
  if (access(flags.server_binary.c_str(), X_OK) == 0) return flags.server_binary;
  return absl::NotFoundError(
      absl::StrCat("--server-binary \"", flags.server_binary, "\": not a program"));
}

std::vector<std::string> ServerFlags(const Flags& flags) {
  std::vector<std::string> all;
  for (const auto& [name, value] :
       {std::pair("--checkpoint-interval", flags.checkpoint_interval),
        std::pair("--keep-last", flags.keep_last), std::pair("--log-size", flags.log_size),
        std::pair("--numerics", flags.numerics)}) {
    if (!value.empty()) all.insert(all.end(), {name, value});
  }
  return all;
}

// Absolute, since the servers of a fleet may be started anywhere.
absl::StatusOr<std::string> CheckpointsRoot(const Flags& flags) {
  const std::string root =
      flags.checkpoints.empty() ? flags.dir + "/checkpoints" : flags.checkpoints;
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(root, error);
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat("folder \"", root, "\""));
  return absolute.lexically_normal().string();
}

// Gives the servers each other's addresses, waits until they serve, and shows them.
absl::Status Assemble(const Flags& flags, LocalFleet& fleet, std::ostream& out) {
  FleetFile file;
  file.name = flags.name;
  file.durability = flags.durability;
  SHARDSTEP_ASSIGN_OR_RETURN(file.checkpoints, CheckpointsRoot(flags));
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
  SHARDSTEP_ASSIGN_OR_RETURN(LocalFleet fleet, LocalFleet::Start(binary, flags.dir, flags.servers,
                                                                 ServerFlags(flags), &signals));
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
  verb->add_option("--durability", flags->durability,
                   "wal: whatever was acknowledged survives; checkpoint: a version survives from "
                   "the next automatic checkpoint on; none: memory only")
      ->check(CLI::IsMember({"none", "checkpoint", "wal"}))
      ->capture_default_str();
  verb->add_option("--checkpoints", flags->checkpoints,
                   "Folder of the checkpoints (default: DIR/checkpoints)");
  verb->add_option("--checkpoint-interval", flags->checkpoint_interval,
                   "How often the servers write a checkpoint by themselves, such as 30s, or auto "
                   "(default: the servers')");
  verb->add_option("--keep-last", flags->keep_last,
                   "How many of those stay (default: the servers')");
  verb->add_option("--log-size", flags->log_size,
                   "With durability wal, how large a server's log may grow, such as 256MiB "
                   "(default: the servers')");
  verb->add_option("--numerics", flags->numerics,
                   "native or portable: see shardstep-server --help (default: the servers')");
  verb->add_option("--server-binary", flags->server_binary,
                   "The program shardstep-server (default: the one beside this program)");
  verb->add_flag("--detach", flags->detach,
                 "Return once all servers serve, and leave them running");
  AddJsonFlag(verb, &flags->json);
}

}  // namespace shardstep
