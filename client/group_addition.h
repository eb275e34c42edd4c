// Adding a parameter group to an optimizer on a fleet.
#ifndef SHARDSTEP_CLIENT_GROUP_ADDITION_H_
#define SHARDSTEP_CLIENT_GROUP_ADDITION_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/client/client_core.h"
#include "shardstep/client/named_tensor.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/client/proposal.h"
#include "shardstep/v1/coordinator.pb.h"

namespace shardstep::internal {

// The group as a proposal of its own, of the optimizer's kind and defaults. INVALID_ARGUMENT with
// the constructor's words. Whether its parameters are in another group is the coordinator's to say:
// another trainer may have added the same group.
absl::StatusOr<Proposal> MakeGroupProposal(const OptimizerIndex& index, const ParameterGroup& group,
                                           int num_servers);

// Proposes `group`, of which `proposal` was made, under the session and lineage of `header` and
// writes the values where they are asked for. Blocks until the group is there, it is refused, or
// `deadline`.
absl::StatusOr<v1::ProposeReply::Done> AddGroupOnFleet(const ClientCore& client,
                                                       const v1::CallHeader& header,
                                                       const ParameterGroup& group,
                                                       const Proposal& proposal,
                                                       absl::Time deadline);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_GROUP_ADDITION_H_
