// Creating an optimizer on a fleet, or attaching to it.
#ifndef SHARDSTEP_CLIENT_CREATION_H_
#define SHARDSTEP_CLIENT_CREATION_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/client/client_core.h"
#include "shardstep/client/named_tensor.h"
#include "shardstep/client/optimizer_core.h"
#include "shardstep/client/pushes.h"
#include "shardstep/optim/options/optimizer_options.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep::internal {

// What a user proposes, checked as far as that can be done here.
struct Proposal {
  OptimizerDefinition definition;
  // By parameter, as the definition lists them.
  std::vector<std::vector<Block>> blocks;
  // Empty for whole tensors.
  DeclaredRegions regions;
};

// INVALID_ARGUMENT with the words that the coordinator would use; see Client::CreateOptimizer.
absl::StatusOr<Proposal> MakeProposal(const std::string& name,
                                      const std::vector<ParameterGroup>& groups,
                                      const OptimizerOptions& optimizer, const Mode& mode,
                                      int trainer_rank, int num_servers);

// Opens the session, proposes, stages the values where they are asked for, and describes what
// stands in the end. Blocks up to `deadline`; nothing refers to the blocks' memory afterwards.
absl::StatusOr<std::unique_ptr<OptimizerCore>> CreateOnFleet(
    std::shared_ptr<const ClientCore> client, const Proposal& proposal, int trainer_rank,
    absl::Time deadline);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_CREATION_H_
