#include <memory>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "shardstep/server/rpc/server.h"
#include "shardstep/server/rpc/server_options.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/mini_fleet.h"

namespace shardstep {
namespace {

class InProcessFleet final : public MiniFleet {
 public:
  explicit InProcessFleet(const MiniFleetOptions& options)
      : MiniFleet(options), servers_(options.servers) {}

  void Kill(int server) override { servers_[server].reset(); }

  absl::StatusOr<int> Terminate(int server, absl::Duration patience) override {
    servers_[server]->Shutdown(patience);
    servers_[server].reset();
    return 0;
  }

  absl::StatusOr<int> AwaitExit(int, absl::Duration) override { return NoProcess(); }
  absl::Status Pause(int) override { return NoProcess(); }
  absl::Status Resume(int) override { return NoProcess(); }
  pid_t pid(int) const override { return 0; }
  std::string LogTail(int) const override { return ""; }

 private:
  static absl::Status NoProcess() {
    return absl::UnimplementedError("a server in the test's own process has no process");
  }

  absl::Status Launch(int server) override {
    ServerOptions launched;
    launched.fleet_file = fleet_file();
    launched.server_rank = server;
    launched.data_directory = data_directory(server);
    launched.threads = options().threads;
    launched.lease = options().lease;
    launched.shard_memory = options().shard_memory;
    launched.push_memory = options().push_memory;
    launched.snapshot_memory = options().snapshot_memory;
    launched.checkpoint_interval = options().checkpoint_interval;
    launched.log_size = options().log_bytes;
    SHARDSTEP_ASSIGN_OR_RETURN(servers_[server], Server::Start(std::move(launched)));
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> AwaitAddress(int server) override {
    return servers_[server]->address();
  }

  std::vector<std::unique_ptr<Server>> servers_;
};

}  // namespace

std::unique_ptr<MiniFleet> MakeInProcessFleet(const MiniFleetOptions& options) {
  return std::make_unique<InProcessFleet>(options);
}

}  // namespace shardstep
