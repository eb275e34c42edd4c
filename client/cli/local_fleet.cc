#include "shardstep/client/cli/local_fleet.h"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "shardstep/client/cli/server_lock.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

constexpr absl::Duration kLook = absl::Milliseconds(20);

std::string AddressPath(const std::string& dir, int rank) {
  return ServerDirectory(dir, rank) + "/address";
}

absl::Status CheckNoneRuns(const std::string& dir, int servers) {
  for (int rank = 0; rank < servers; ++rank) {
    SHARDSTEP_ASSIGN_OR_RETURN(const std::optional<pid_t> pid,
                               RunningServer(ServerDirectory(dir, rank)));
    if (!pid) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("server ", rank, " of \"", dir, "\" runs already as process ", *pid,
                     "; shardctl fleet down --fleet ", FleetFilePath(dir)));
  }
  return absl::OkStatus();
}

// So that nobody takes the addresses of an earlier run for the new ones.
absl::Status PrepareDirectory(const std::string& dir, int servers) {
  std::error_code error;
  std::filesystem::remove(FleetFilePath(dir), error);
  for (int rank = 0; rank < servers && !error; ++rank) {
    std::filesystem::create_directories(ServerDirectory(dir, rank), error);
    if (!error) std::filesystem::remove(AddressPath(dir, rank), error);
  }
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat("folder \"", dir, "\""));
  return absl::OkStatus();
}

absl::Status EndedError(int rank, ServerProcess& server) {
  return absl::UnavailableError(
      absl::StrCat("server ", rank, " has ended: ", *server.Ended(), server.LogTail()));
}

}  // namespace

std::string ServerDirectory(const std::string& dir, int server_rank) {
  return absl::StrCat(dir, "/server-", server_rank);
}

std::string FleetFilePath(const std::string& dir) { return absl::StrCat(dir, "/fleet.json"); }

absl::StatusOr<LocalFleet> LocalFleet::Start(const std::string& binary, const std::string& dir,
                                             int servers, const std::vector<std::string>& flags,
                                             SignalWait* signals) {
  SHARDSTEP_RETURN_IF_ERROR(CheckNoneRuns(dir, servers));
  SHARDSTEP_RETURN_IF_ERROR(PrepareDirectory(dir, servers));
  LocalFleet fleet(dir, signals);
  for (int rank = 0; rank < servers; ++rank) {
    const std::string data = ServerDirectory(dir, rank);
    std::vector<std::string> command = {binary,
                                        "--fleet",
                                        FleetFilePath(dir),
                                        "--rank",
                                        absl::StrCat(rank),
                                        "--listen",
                                        "127.0.0.1:0",
                                        "--address-file",
                                        AddressPath(dir, rank),
                                        "--data",
                                        data};
    command.insert(command.end(), flags.begin(), flags.end());
    SHARDSTEP_ASSIGN_OR_RETURN(ServerProcess server, ServerProcess::Start(command, data + "/log"));
    fleet.servers_.push_back(std::move(server));
  }
  return fleet;
}

LocalFleet::~LocalFleet() {
  for (ServerProcess& server : servers_) server.Signal(SIGKILL);
  for (ServerProcess& server : servers_) server.Join();
}

absl::StatusOr<std::vector<std::string>> LocalFleet::WaitForAddresses(absl::Duration timeout) {
  std::vector<std::string> addresses;
  const auto all_there = [&]() -> absl::Status {
    while (addresses.size() < servers_.size()) {
      const int rank = static_cast<int>(addresses.size());
      std::string address;
      std::ifstream(AddressPath(dir_, rank)) >> address;
      if (address.empty())
        return absl::UnavailableError(absl::StrCat("server ", rank, " has no address"));
      addresses.push_back(std::move(address));
    }
    return absl::OkStatus();
  };
  SHARDSTEP_RETURN_IF_ERROR(WaitUntil(all_there, timeout));
  return addresses;
}

absl::Status LocalFleet::WaitUntil(const std::function<absl::Status()>& ready,
                                   absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    // Before `ready`, which may have asked the others of a fleet in which one is dead.
    for (size_t rank = 0; rank < servers_.size(); ++rank) {
      if (servers_[rank].Ended()) return EndedError(static_cast<int>(rank), servers_[rank]);
    }
    const absl::Status status = ready();
    if (status.ok()) return status;
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat(status.message(), " after ", absl::FormatDuration(timeout), "; see ",
                       ServerDirectory(dir_, 0), "/log and its siblings"));
    }
    if (signals_->Wait(kLook)) return absl::CancelledError("interrupted");
  }
}

absl::Status LocalFleet::Watch(std::ostream& err) {
  std::vector<bool> told(servers_.size());
  for (;;) {
    for (size_t rank = 0; rank < servers_.size(); ++rank) {
      if (told[rank] || !servers_[rank].Ended()) continue;
      told[rank] = true;
      err << "shardctl: " << EndedError(static_cast<int>(rank), servers_[rank]).message()
          << std::endl;
    }
    if (std::find(told.begin(), told.end(), false) == told.end()) {
      return absl::UnavailableError("all servers have ended");
    }
    if (signals_->Wait(absl::Seconds(1))) return absl::OkStatus();
  }
}

void LocalFleet::Stop(std::ostream& err) {
  for (ServerProcess& server : servers_) server.Signal(SIGTERM);
  const absl::Time deadline = absl::Now() + kDrainTimeout;
  const auto ended = [](ServerProcess& server) { return server.Ended().has_value(); };
  while (!std::all_of(servers_.begin(), servers_.end(), ended) && absl::Now() < deadline)
    signals_->Wait(kLook);
  for (size_t rank = 0; rank < servers_.size(); ++rank) {
    if (servers_[rank].Ended()) continue;
    err << "shardctl: server " << rank << " runs " << kDrainTimeout << " after SIGTERM: killed"
        << std::endl;
    servers_[rank].Signal(SIGKILL);
    servers_[rank].Join();
  }
}

}  // namespace shardstep
