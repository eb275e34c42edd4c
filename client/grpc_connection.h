// Connection over gRPC: the retry loop, deadlines, and channels that follow the fleet file.
#ifndef SHARDSTEP_CLIENT_GRPC_CONNECTION_H_
#define SHARDSTEP_CLIENT_GRPC_CONNECTION_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/client/connection.h"
#include "shardstep/client/retry.h"
#include "shardstep/wire/fleet_file.h"

namespace shardstep::internal {

// Three connections to each server, made when they are first used: for calls, for pushes, and for
// reading and writing tensors. Does not block. When a server cannot be reached the file at
// `fleet_path` (if not empty) is read again, and a server that moved is called at its new address
// from then on.
std::unique_ptr<Connection> MakeGrpcConnection(const FleetFile& fleet, std::string fleet_path,
                                               const RetryPolicy& policy);

// Asks the server at `address` for the fleet it belongs to, up to `deadline`.
absl::StatusOr<FleetFile> AskForFleet(const std::string& address, const RetryPolicy& policy,
                                      absl::Time deadline);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_GRPC_CONNECTION_H_
