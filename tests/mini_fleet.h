// MiniFleet: a small fleet for a test, in the test's own process or of real server processes.
//
//   std::unique_ptr<MiniFleet> fleet = MakeProcessFleet();
//   ASSERT_OK(fleet->Start());
//   ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet->fleet_file()));
//
// Used by one thread, the one that lives as long as the fleet (a server process ends with the
// thread that started it). Methods block, for a bounded time. The destructor ends all servers.
// Files lie in a fresh folder below TEST_TMPDIR.
#ifndef SHARDSTEP_TESTS_MINI_FLEET_H_
#define SHARDSTEP_TESTS_MINI_FLEET_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/wire/limits.h"

namespace shardstep {

struct MiniFleetOptions {
  int servers = 3;
  std::string name = "mini";
  int threads = 1;
  absl::Duration lease = kDefaultLease;
  int64_t shard_memory = int64_t{1} << 30;
  int64_t push_memory = int64_t{1} << 30;
  int64_t snapshot_memory = int64_t{1} << 30;
  // Of server processes: "native" or "portable". In one process all is as the process is.
  std::string numerics = "native";
  std::string durability = "none";
  // The root of checkpoints; empty: a folder of the fleet's own.
  std::string checkpoints;
  absl::Duration checkpoint_interval = absl::Hours(1);
  // With durability "wal".
  int64_t log_bytes = 64 << 20;
  // Of server processes: the program, among the test's data; further flags; and what the next one
  // that is started finds in its environment, as NAME=value (null: nothing more than the test has).
  std::string server_program = "server/shardstep-server";
  std::vector<std::string> server_flags;
  std::function<std::vector<std::string>(int server)> environment;
  // What the fleet file says for a server that listens at `address`; null: that.
  std::function<std::string(int server, const std::string& address)> published;
};

class MiniFleet {
 public:
  virtual ~MiniFleet() = default;
  MiniFleet(const MiniFleet&) = delete;
  MiniFleet& operator=(const MiniFleet&) = delete;

  // All of what follows in a row: StartServers for all, WriteFleetFile, and all servers serve.
  absl::Status Start();

  // Starts servers that do not run, on free ports and on the data directories that they had before.
  // Returns when they have bound; an early end is an error with the tail of its log.
  absl::Status StartServers(const std::vector<int>& servers);
  absl::Status StartServer(int server) { return StartServers({server}); }
  // Names the servers' addresses; one that was never started gets an address where nobody listens.
  absl::Status WriteFleetFile() const;
  // Kill, StartServers, WriteFleetFile.
  absl::Status Restart(const std::vector<int>& servers);
  absl::Status Restart(int server) { return Restart(std::vector<int>{server}); }

  // Ends the server without a drain, as kill -9. Returns when it is gone.
  virtual void Kill(int server) = 0;
  // Ends it with a drain, as SIGTERM. Returns its exit code; DEADLINE_EXCEEDED after `patience`.
  virtual absl::StatusOr<int> Terminate(int server, absl::Duration patience) = 0;
  // The exit code of one that ends by itself; DEADLINE_EXCEEDED likewise. UNIMPLEMENTED in one
  // process, as the two below.
  virtual absl::StatusOr<int> AwaitExit(int server, absl::Duration patience) = 0;
  // Stops all of its threads, and lets them go on.
  virtual absl::Status Pause(int server) = 0;
  virtual absl::Status Resume(int server) = 0;
  // Of a server process that runs; 0 in one process.
  virtual pid_t pid(int server) const = 0;
  // The last lines that a server process wrote. In one process they are the test's own output.
  virtual std::string LogTail(int server) const = 0;

  const MiniFleetOptions& options() const { return options_; }
  const std::string& directory() const { return directory_; }
  const std::string& fleet_file() const { return fleet_file_; }
  std::string data_directory(int server) const;
  std::string checkpoints() const;
  // host:port; empty before it was started.
  const std::string& address(int server) const { return addresses_[server]; }

 protected:
  explicit MiniFleet(const MiniFleetOptions& options);

  // Starts a server; and its address, once it has bound.
  virtual absl::Status Launch(int server) = 0;
  virtual absl::StatusOr<std::string> AwaitAddress(int server) = 0;

 private:
  const MiniFleetOptions options_;
  const std::string directory_;
  const std::string fleet_file_;
  std::vector<std::string> addresses_;
};

// Server objects in this process.
std::unique_ptr<MiniFleet> MakeInProcessFleet(const MiniFleetOptions& options = {});
// Processes of //server:shardstep-server, or of the program that the options name.
std::unique_ptr<MiniFleet> MakeProcessFleet(const MiniFleetOptions& options = {});

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_MINI_FLEET_H_
