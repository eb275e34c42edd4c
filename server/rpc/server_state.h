// ServerState: what the handlers of one server share: who the server is, and its Node while it
// serves.
#ifndef SHARDSTEP_SERVER_RPC_SERVER_STATE_H_
#define SHARDSTEP_SERVER_RPC_SERVER_STATE_H_

#include <grpcpp/server_context.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/server/clock.h"
#include "shardstep/server/node.h"
#include "shardstep/server/rpc/open_streams.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/wire/fleet_file.h"

namespace shardstep {

// Known before the fleet file is there.
struct ServerIdentity {
  int server_rank = 0;
  uint64_t incarnation = 0;
  uint32_t numeric_fingerprint = 0;
  std::string fleet_file;  // its path
};

// Thread-safe, never blocks.
class ServerState {
 public:
  // `clock` must outlive it. At first the server waits for its fleet file.
  ServerState(ServerIdentity identity, const Clock* clock);

  const ServerIdentity& identity() const { return identity_; }
  const Clock& clock() const { return *clock_; }
  OpenStreams& streams() { return streams_; }

  // UNAVAILABLE, saying why, while the server waits for its fleet file and when it shuts down.
  absl::StatusOr<std::shared_ptr<Node>> Serving() const;
  // Null before the first Serve.
  std::shared_ptr<const FleetFile> fleet() const;

  // Still waiting, for another reason: why the fleet file is of no use.
  void StillWaiting(const absl::Status& why);
  void Serve(FleetFile fleet, std::shared_ptr<Node> node);
  // From now on Serving fails.
  void StopServing();

 private:
  const ServerIdentity identity_;
  const Clock* const clock_;
  OpenStreams streams_;

  mutable Mutex mutex_;
  absl::Status not_serving_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<Node> node_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const FleetFile> fleet_ ABSL_GUARDED_BY(mutex_);
};

// The deadline rule of the protocol for a call of this name.
absl::Status CheckDeadline(absl::string_view call, const grpc::CallbackServerContext& context);

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_SERVER_STATE_H_
