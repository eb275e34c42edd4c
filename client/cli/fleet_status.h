// How the servers of a fleet are shown: by `fleet status` and by `fleet up` when they serve.
#ifndef SHARDSTEP_CLIENT_CLI_FLEET_STATUS_H_
#define SHARDSTEP_CLIENT_CLI_FLEET_STATUS_H_

#include <ostream>

#include "absl/status/status.h"
#include "shardstep/client/cli/verbs.h"
#include "shardstep/client/client.h"

namespace shardstep {

void PrintFleetStatus(const FleetStatus& fleet, const FleetFlags& flags, std::ostream& out);

// OK if all servers serve; else UNAVAILABLE, naming the first that does not.
absl::Status AllServing(const FleetStatus& fleet);

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_CLI_FLEET_STATUS_H_
