#include "shardstep/tests/mini_fleet.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/client/client.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/fleet_file.h"

namespace shardstep {
namespace {

// Fresh even where an earlier run of the test left its own.
std::string MakeDirectory() {
  static std::atomic<int> count{0};
  const std::filesystem::path directory =
      std::filesystem::path(testing::TempDir()) / absl::StrCat("fleet-", ++count);
  std::filesystem::remove_all(directory);
  std::filesystem::create_directories(directory);
  return directory;
}

}  // namespace

MiniFleet::MiniFleet(const MiniFleetOptions& options)
    : options_(options),
      directory_(MakeDirectory()),
      fleet_file_(absl::StrCat(directory_, "/fleet.json")),
      addresses_(options.servers) {}

std::string MiniFleet::data_directory(int server) const {
  return absl::StrCat(directory_, "/server-", server);
}

std::string MiniFleet::checkpoints() const {
  return options_.checkpoints.empty() ? absl::StrCat(directory_, "/checkpoints")
                                      : options_.checkpoints;
}

absl::Status MiniFleet::Start() {
  std::vector<int> all(options_.servers);
  std::iota(all.begin(), all.end(), 0);
  SHARDSTEP_RETURN_IF_ERROR(StartServers(all));
  SHARDSTEP_RETURN_IF_ERROR(WriteFleetFile());
  return Client::Connect(fleet_file_).status();
}

absl::Status MiniFleet::StartServers(const std::vector<int>& servers) {
  for (const int server : servers) SHARDSTEP_RETURN_IF_ERROR(Launch(server));
  for (const int server : servers) {
    SHARDSTEP_ASSIGN_OR_RETURN(addresses_[server], AwaitAddress(server));
  }
  return absl::OkStatus();
}

absl::Status MiniFleet::WriteFleetFile() const {
  FleetFile fleet;
  fleet.name = options_.name;
  fleet.durability = options_.durability;
  fleet.checkpoints = checkpoints();
  for (int server = 0; server < options_.servers; ++server) {
    const std::string address =
        addresses_[server].empty() ? absl::StrCat("127.0.0.1:", server + 1) : addresses_[server];
    fleet.servers.push_back(options_.published ? options_.published(server, address) : address);
  }
  return fleet.Write(fleet_file_);
}

absl::Status MiniFleet::Restart(const std::vector<int>& servers) {
  for (const int server : servers) Kill(server);
  SHARDSTEP_RETURN_IF_ERROR(StartServers(servers));
  return WriteFleetFile();
}

}  // namespace shardstep
