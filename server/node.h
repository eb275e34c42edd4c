// Node: one server without its sockets: its shard hosts, and on the coordinating server its
// coordinators.
#ifndef SHARDSTEP_SERVER_NODE_H_
#define SHARDSTEP_SERVER_NODE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/server/catalog.h"
#include "shardstep/server/checkpoint_store.h"
#include "shardstep/server/clock.h"
#include "shardstep/server/coordinator.h"
#include "shardstep/server/durability.h"
#include "shardstep/server/executor.h"
#include "shardstep/server/memory_budget.h"
#include "shardstep/server/reply.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/v1/coordinator.pb.h"

namespace shardstep {

// Each takes one stream of the connection to every server (kMaxConcurrentStreams).
inline constexpr size_t kMaxOptimizers = 192;

struct NodeOptions {
  int server_rank = 0;
  int servers = 1;
  absl::Duration lease;
  int64_t shard_memory = 0;
  int64_t push_memory = 0;
  int64_t snapshot_memory = 0;
  uint32_t numeric_fingerprint = 0;
  Durability durability = Durability::kNone;
  // With durability "checkpoint"; absent: by what checkpoints cost (see CoordinatorEnvironment).
  std::optional<absl::Duration> checkpoint_interval;
  // With durability "wal": a log above this, and above the size of the base it stands on, is
  // replaced by a new base.
  int64_t log_bytes = 64 << 20;
};

// What a node works with. Everything must outlive it.
struct NodeEnvironment {
  // Opens a message stream from a coordinator of this server to another server, and keeps it open:
  // connects again when it breaks, and stops when the coordinator is gone. Makes the calls
  // ConnectPeer, OnPeerReply, DisconnectPeer.
  using OpenPeer =
      std::function<void(int server, const std::string& optimizer, std::weak_ptr<Coordinator>)>;

  // Optimizers found in it are known again: recovered from their logs, or lost.
  Catalog* catalog = nullptr;
  CheckpointStore* checkpoints = nullptr;
  // Of the data directory.
  FileSystem* files = nullptr;
  Executor* executor = nullptr;  // does the tensor work
  Executor* disk = nullptr;      // reads and writes checkpoints and bases
  Executor* log = nullptr;       // writes logs: steps wait for it
  const Clock* clock = nullptr;
  OpenPeer open_peer;
  // The process must end at once: the disk did not keep what it was told to, or another server has
  // taken this one's place. Called from any thread; may return.
  std::function<void(const absl::Status&)> fatal;
};

// Thread-safe; nothing blocks but the destructor's wait for the executor's jobs, which the
// executor's owner does.
class Node {
 public:
  Node(const NodeOptions& options, const NodeEnvironment& environment);

  const NodeOptions& options() const { return options_; }
  uint64_t incarnation() const { return env_.catalog->incarnation(); }
  const MemoryBudget& shard_memory() const { return shard_memory_; }
  const MemoryBudget& push_memory() const { return push_memory_; }
  const MemoryBudget& snapshot_memory() const { return snapshot_memory_; }

  // The coordinator of `optimizer`. FAILED_PRECONDITION NOT_COORDINATOR on another server;
  // INVALID_ARGUMENT for a name that cannot be one; with `create`, made where it is missing
  // (RESOURCE_EXHAUSTED above kMaxOptimizers), else NOT_FOUND with the nearest name.
  absl::StatusOr<std::shared_ptr<Coordinator>> FindCoordinator(const std::string& optimizer,
                                                               bool create);
  // The host of `optimizer` here; NOT_FOUND likewise. Only a coordinator's stream creates.
  absl::StatusOr<std::shared_ptr<ShardHost>> FindHost(const std::string& optimizer, bool create);

  // Opens the streams of the coordinators that were made from the catalog. Once, when the fleet is
  // known.
  void ConnectPeers();

  // FAILED_PRECONDITION NOT_COORDINATOR likewise.
  void ListOptimizers(Reply<v1::ListOptimizersReply> reply);
  // The calls of these names; they read the disk, whether or not the optimizer is on the fleet.
  void ListCheckpoints(const v1::ListCheckpointsRequest& request,
                       Reply<v1::ListCheckpointsReply> reply);
  void VerifyCheckpoint(const v1::VerifyCheckpointRequest& request,
                        Reply<v1::VerifyCheckpointReply> reply);

  // To be called a few times a second.
  void Tick();
  // Ends waiting calls with UNAVAILABLE and writes the versions into the catalog; `done` when that
  // is on disk.
  void Drain(std::function<void()> done);
  // Writes the versions into the catalog, in the background.
  void NoteVersions(std::function<void()> done);

 private:
  // `found`: what the catalog had of the name when this server started; null for a name that is
  // made anew.
  std::shared_ptr<Coordinator> MakeCoordinator(const std::string& optimizer,
                                               const v1::CatalogEntry* found)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<ShardHost> MakeHost(const std::string& optimizer, const v1::CatalogEntry* found)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<std::shared_ptr<Coordinator>> Coordinators();
  absl::Status CoordinatesNothing() const;

  const NodeOptions options_;
  const NodeEnvironment env_;
  MemoryBudget shard_memory_;
  MemoryBudget push_memory_;
  MemoryBudget snapshot_memory_;

  Mutex mutex_;
  std::map<std::string, std::shared_ptr<Coordinator>> coordinators_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<ShardHost>> hosts_ ABSL_GUARDED_BY(mutex_);
  uint64_t coordinators_made_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time last_note_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_NODE_H_
