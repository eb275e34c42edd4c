// ServerOptions: how a server process is started.
#ifndef SHARDSTEP_SERVER_RPC_SERVER_OPTIONS_H_
#define SHARDSTEP_SERVER_RPC_SERVER_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shardstep/server/clock.h"
#include "shardstep/wire/limits.h"

namespace shardstep {

// This machine's memory; 1 GiB where the system does not tell.
int64_t PhysicalMemoryBytes();

// What a process ends with whose server must end at once.
inline constexpr int kExitFatal = 3;

struct ServerOptions {
  // Of the fleet file, which need not exist yet: the server waits for it.
  std::string fleet_file;
  // This server's place in it, from 0.
  int server_rank = 0;
  // host:port; port 0 takes a free one.
  std::string listen = "127.0.0.1:0";
  // Where the host:port that was bound is written, as a whole, once it is bound; empty: nowhere.
  std::string address_file;
  // For the catalog and, with durability "wal", the logs; made where it is missing. One server at a
  // time.
  std::string data_directory;
  // What shards may be placed on. Only "cpu" is offered.
  std::vector<std::string> devices = {"cpu"};
  // That do the tensor work; at least 1.
  int threads = 1;
  // Permits addresses that other machines reach, without encryption.
  bool insecure = false;
  // Serves gRPC's reflection, for tools such as grpc_cli.
  bool reflection = false;
  // Bytes of parameters and their state, of pushes waiting, and that held versions may come to
  // cost.
  int64_t shard_memory = PhysicalMemoryBytes() / 2;
  int64_t push_memory = PhysicalMemoryBytes() / 4;
  int64_t snapshot_memory = PhysicalMemoryBytes() / 4;
  // With durability "checkpoint": how often a new version is checkpointed (absent: by what that
  // costs, see CoordinatorEnvironment), and how many of these checkpoints stay.
  std::optional<absl::Duration> checkpoint_interval = absl::Minutes(10);
  int keep_last = 3;
  // With durability "wal": bytes of an optimizer's log here above which a new base replaces it; a
  // log never is replaced before it is as large as the base.
  int64_t log_size = 64 << 20;
  // Of sessions and snapshots.
  absl::Duration lease = kDefaultLease;
  // Must outlive the server; null: a SteadyClock.
  const Clock* clock = nullptr;
  // Called, from any thread, when the server must end at once: its disk did not keep what it was
  // told to, or another server has taken its place. Null: logs why and ends the process with
  // kExitFatal.
  std::function<void(const absl::Status&)> fatal;

  // INVALID_ARGUMENT names the option that is wrong.
  absl::Status Validate() const;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_SERVER_OPTIONS_H_
