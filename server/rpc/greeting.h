// What whoever connects is checked against: the fleet and the server rank.
#ifndef SHARDSTEP_SERVER_RPC_GREETING_H_
#define SHARDSTEP_SERVER_RPC_GREETING_H_

#include <string>

#include "absl/status/status.h"
#include "shardstep/wire/fleet_file.h"

namespace shardstep {

// FAILED_PRECONDITION FLEET_MISMATCH, with both summaries, if `hash` is not that of `fleet`.
absl::Status CheckFleet(const FleetFile& fleet, const std::string& hash, const std::string& summary,
                        int server_rank);

// FAILED_PRECONDITION FLEET_MISMATCH if the caller expected another server than `server_rank` at
// this address.
absl::Status CheckServerRank(int expected, int server_rank);

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_GREETING_H_
