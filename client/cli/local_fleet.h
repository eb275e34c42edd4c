// The servers of a fleet on this machine, started by this process. For one thread.
//
//   <dir>/fleet.json              the fleet file, written once every server has an address
//   <dir>/server-<rank>/          a server's data directory, with its LOCK
//   <dir>/server-<rank>/address   host:port that it listens on
//   <dir>/server-<rank>/log       what it wrote
#ifndef SHARDSTEP_CLIENT_CLI_LOCAL_FLEET_H_
#define SHARDSTEP_CLIENT_CLI_LOCAL_FLEET_H_

#include <functional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/client/cli/server_process.h"
#include "shardstep/client/cli/signal_wait.h"

namespace shardstep {

// How long servers have to drain after SIGTERM.
inline constexpr absl::Duration kDrainTimeout = absl::Seconds(15);

std::string ServerDirectory(const std::string& dir, int server_rank);
std::string FleetFilePath(const std::string& dir);

class LocalFleet {
 public:
  // Starts `servers` servers of the program `binary` in `dir`, which is made if it is missing, with
  // `flags` besides those that say who and where they are. FAILED_PRECONDITION: servers run there
  // already. `signals` must outlive the fleet.
  static absl::StatusOr<LocalFleet> Start(const std::string& binary, const std::string& dir,
                                          int servers, const std::vector<std::string>& flags,
                                          SignalWait* signals);

  LocalFleet(LocalFleet&&) = default;
  LocalFleet& operator=(LocalFleet&&) = delete;
  // Kills what still runs; Stop drains it first.
  ~LocalFleet();

  // The servers' addresses, once all have one. Errors as WaitUntil.
  absl::StatusOr<std::vector<std::string>> WaitForAddresses(absl::Duration timeout);

  // Calls `ready` again and again until it returns OK. UNAVAILABLE: a server ended, with the last
  // lines of its log; DEADLINE_EXCEEDED: `timeout` is over, with what `ready` said last; CANCELLED:
  // SIGINT or SIGTERM.
  absl::Status WaitUntil(const std::function<absl::Status()>& ready, absl::Duration timeout);

  // Blocks until SIGINT or SIGTERM; a server that ends meanwhile is told to `err`. UNAVAILABLE: all
  // have ended.
  absl::Status Watch(std::ostream& err);

  // SIGTERM to all, SIGKILL to those that still run kDrainTimeout later, which `err` is told.
  // Blocks until all have ended.
  void Stop(std::ostream& err);

  // Leaves the servers running when this object goes.
  void Detach() { servers_.clear(); }

 private:
  LocalFleet(std::string dir, SignalWait* signals) : dir_(std::move(dir)), signals_(signals) {}

  std::string dir_;
  SignalWait* signals_;
  std::vector<ServerProcess> servers_;  // by server rank
};

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_CLI_LOCAL_FLEET_H_
