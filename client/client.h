// Client: a connection to a fleet of servers.
//
//   auto client = shardstep::Client::Connect("fleet.json").value();
//   auto optimizer = client.CreateOptimizer("digits", parameters, shardstep::AdamWOptions(1e-3),
//                                           shardstep::Synchronous(2), /*trainer_rank=*/0).value();
//
// Thread-safe. Copies share one connection. All methods block, for the time that their options name
// at most. A client runs one thread of its own, which renews the leases of its optimizers'
// sessions.
//
// Two things a program's main may decide for the whole process; the SDK does neither by itself.
// ConfigureAllocator (shardstep/wire/allocator.h): large tensors at twice the speed.
// SingleCallbackThread (shardstep/wire/single_callback_thread.h): on one or two processors, small
// models and tensors up to 64 KiB much faster, large synchronous steps a tenth slower.
//
// Errors: INVALID_ARGUMENT and NOT_FOUND (with the nearest name) are the caller's; UNAVAILABLE says
// which server at which address, how often and how long it was tried.
#ifndef SHARDSTEP_CLIENT_CLIENT_H_
#define SHARDSTEP_CLIENT_CLIENT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "shardstep/client/checkpoints.h"
#include "shardstep/client/named_tensor.h"
#include "shardstep/client/sharded_optimizer.h"
#include "shardstep/optim/options/optimizer_options.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep {

namespace internal {
class ClientCore;
}  // namespace internal

struct ClientOptions {
  // How long Connect waits for all servers to answer; 0: it does not ask them (the first call
  // does).
  absl::Duration connect_timeout = absl::Seconds(30);
  // How long one call is repeated while a server is away or short of memory, where no other limit
  // is named.
  absl::Duration call_timeout = absl::Minutes(1);
  // Longest wait between two attempts; waits begin at a tenth of a second, double, and are
  // shortened at random.
  absl::Duration longest_backoff = absl::Seconds(2);
};

struct CreateOptions {
  // How long to wait for the other trainers that give parts of a ShardedTensor, and for the
  // servers.
  absl::Duration timeout = absl::Minutes(10);
};

// One optimizer in a list.
struct OptimizerSummary {
  std::string name;
  std::string kind;
  uint64_t version = 0;
  uint64_t durable_version = 0;
  uint64_t lineage = 0;
  uint64_t parameters = 0;
  uint64_t elements = 0;
  uint64_t shards = 0;
  // Absent, as the kind is, while the coordinator does not know it.
  std::optional<Mode> mode;
  // "live", "creating", "recovering", "shards lost".
  std::string state;
};

struct OptimizerDetails {
  // Definition at creation, plan, groups as they are now, state names.
  OptimizerDescription description;
  uint64_t version = 0;
  uint64_t durable_version = 0;
  uint64_t lineage = 0;
};

struct SessionSummary {
  int trainer_rank = 0;
  uint64_t session = 0;  // 0: never came
  absl::Duration last_seen = absl::ZeroDuration();
  bool lapsed = false;
  uint64_t version = 0;  // of its last committed step; 0 = none
  bool in_step = false;
  bool waited_for = false;
};

struct ServerStatus {
  int server_rank = 0;
  std::string address;
  // Of the question to this server; where it is not OK the rest is empty.
  absl::Status status;
  bool serving = false;
  uint64_t incarnation = 0;
  std::string version;
  uint32_t numeric_fingerprint = 0;
  uint64_t shard_bytes = 0;
  uint64_t push_bytes = 0;
  uint64_t snapshot_bytes = 0;
};

struct FleetStatus {
  std::string name;
  std::string durability;
  std::string checkpoints;
  std::vector<ServerStatus> servers;  // by server rank
};

class Client {
 public:
  // `fleet` is the path of a fleet file if it ends in ".json", contains a '/' or names an existing
  // file, else the address (host:port) of any server, which describes the others.
  // FAILED_PRECONDITION: the servers' fleet is another one.
  static absl::StatusOr<Client> Connect(absl::string_view fleet, const ClientOptions& options = {});

  // Of the SDK's own use.
  explicit Client(std::shared_ptr<internal::ClientCore> core);

  // Creates the optimizer on the fleet, or attaches to the one of that name if its definition is
  // equal; then opens a session for `trainer_rank`, which fences an older session of that rank. The
  // parameters' memory is read while the call lasts (the values of the first complete creation
  // stand) and not referred to afterwards. INVALID_ARGUMENT before any call: a name twice, one
  // tensor under two names, dtypes other than float32, float64, float16 and bfloat16, or one of the
  // last two without a master, more than 8 dimensions, local shards that do not fit.
  // FAILED_PRECONDITION names the first difference to an optimizer that exists.
  absl::StatusOr<ShardedOptimizer> CreateOptimizer(absl::string_view name,
                                                   const std::vector<NamedTensor>& parameters,
                                                   const OptimizerOptions& optimizer, Mode mode,
                                                   int trainer_rank,
                                                   const CreateOptions& options = {});
  absl::StatusOr<ShardedOptimizer> CreateOptimizer(absl::string_view name,
                                                   const std::vector<ParameterGroup>& groups,
                                                   const OptimizerOptions& optimizer, Mode mode,
                                                   int trainer_rank,
                                                   const CreateOptions& options = {});

  // Reads an optimizer that exists, without a session.
  absl::StatusOr<OptimizerReader> OpenReader(absl::string_view name);

  absl::StatusOr<std::vector<OptimizerSummary>> ListOptimizers();
  absl::StatusOr<OptimizerDetails> Describe(absl::string_view name);
  absl::StatusOr<std::vector<SessionSummary>> ListSessions(absl::string_view name);
  // The optimizer that stands now: not one that is created under this name meanwhile.
  absl::Status DeleteOptimizer(absl::string_view name);

  // All servers write the current version into a new checkpoint, while training goes on.
  // ALREADY_EXISTS: options.id does.
  absl::StatusOr<CheckpointSummary> Checkpoint(absl::string_view name,
                                               const CheckpointOptions& options = {});
  // Oldest first. The optimizer need not be on the fleet, here and below.
  absl::StatusOr<std::vector<CheckpointSummary>> ListCheckpoints(absl::string_view name);
  // Reads every byte of a checkpoint again and compares it with its checksums: what is wrong where;
  // empty: nothing.
  absl::StatusOr<std::vector<std::string>> VerifyCheckpoint(absl::string_view name,
                                                            absl::string_view id,
                                                            const Progress& progress = nullptr);
  // Makes the optimizer of the checkpoint stand again, under a new lineage, on whatever servers the
  // fleet has; it is made anew where it is missing.
  absl::StatusOr<RestoreResult> Restore(absl::string_view name, absl::string_view id,
                                        const RestoreOptions& options = {});

  // Asks every server once and waits `timeout` at most; a server that does not answer is in the
  // result.
  absl::StatusOr<FleetStatus> GetFleetStatus(absl::Duration timeout = absl::Seconds(5));

 private:
  std::shared_ptr<internal::ClientCore> core_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_CLIENT_H_
