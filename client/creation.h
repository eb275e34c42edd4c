// Creating an optimizer on a fleet, or attaching to it.
#ifndef SHARDSTEP_CLIENT_CREATION_H_
#define SHARDSTEP_CLIENT_CREATION_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/client/client_core.h"
#include "shardstep/client/optimizer_core.h"
#include "shardstep/client/proposal.h"

namespace shardstep::internal {

// Opens the session, proposes, stages the values where they are asked for, and describes what
// stands in the end. Blocks up to `deadline`; nothing refers to the blocks' memory afterwards.
absl::StatusOr<std::unique_ptr<OptimizerCore>> CreateOnFleet(
    std::shared_ptr<const ClientCore> client, const Proposal& proposal, int trainer_rank,
    absl::Time deadline);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_CREATION_H_
