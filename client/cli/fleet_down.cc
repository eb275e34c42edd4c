#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "shardstep/client/cli/local_fleet.h"
#include "shardstep/client/cli/server_lock.h"
#include "shardstep/client/cli/table.h"
#include "shardstep/client/cli/verbs.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/fleet_file.h"

namespace shardstep {
namespace {

absl::StatusOr<FleetFile> Load(const std::string& path) {
  absl::StatusOr<FleetFile> file = FleetFile::Load(path);
  if (absl::IsNotFound(file.status())) return absl::UnavailableError(file.status().message());
  return file;
}

absl::Status Run(const FleetFlags& flags, std::ostream& out, std::ostream& /*err*/) {
  SHARDSTEP_ASSIGN_OR_RETURN(const FleetFile file, Load(flags.fleet));
  const std::filesystem::path folder = std::filesystem::path(flags.fleet).parent_path();
  const std::string dir = folder.empty() ? "." : folder.string();

  absl::Status status;
  std::vector<std::optional<StoppingServer>> stopping;
  for (int rank = 0; rank < static_cast<int>(file.servers.size()); ++rank) {
    absl::StatusOr<std::optional<StoppingServer>> server =
        StoppingServer::Stop(ServerDirectory(dir, rank));
    status.Update(server.status());
    stopping.push_back(server.ok() ? std::optional<StoppingServer>(*std::move(server))
                                   : std::nullopt);
  }

  const absl::Time deadline = absl::Now() + kDrainTimeout;
  Json json = Json::array();
  Table table({">server", ">process", "state"});
  for (size_t rank = 0; rank < stopping.size(); ++rank) {
    std::string state = "not running";
    Json process;
    if (stopping[rank]) {
      process = stopping[rank]->pid();
      state = stopping[rank]->WaitFor(deadline - absl::Now()) ? "stopped" : "still running";
    }
    if (state == "still running") {
      status.Update(absl::FailedPreconditionError(
          absl::StrCat("server ", rank, " runs ", absl::FormatDuration(kDrainTimeout),
                       " after SIGTERM, as process ", stopping[rank]->pid())));
    }
    json.push_back({{"server_rank", rank}, {"process", process}, {"state", state}});
    table.AddRow({absl::StrCat(rank), process.is_null() ? "-" : process.dump(), state});
  }
  if (flags.json) {
    Print(out, {{"name", file.name}, {"fleet", flags.fleet}, {"servers", json}});
  } else {
    out << table.ToString();
  }
  return status;
}

}  // namespace

void AddFleetDown(CLI::App* fleet, Context* context) {
  const auto flags = std::make_shared<FleetFlags>();
  AddFleetFlags(
      AddVerb(
          fleet, "down",
          "Stops the servers that `fleet up` started in the fleet file's folder: asks them to end "
          "(SIGTERM) and waits up to 15 seconds.",
          context, flags, Run),
      flags.get());
}

}  // namespace shardstep
