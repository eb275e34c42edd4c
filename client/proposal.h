// What a user proposes: parameters with their values, groups and options; and writing the values
// to a staging.
#ifndef SHARDSTEP_CLIENT_PROPOSAL_H_
#define SHARDSTEP_CLIENT_PROPOSAL_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/client/client_core.h"
#include "shardstep/client/named_tensor.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/client/pushes.h"
#include "shardstep/optim/options/optimizer_options.h"
#include "shardstep/v1/coordinator.pb.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep::internal {

// Checked as far as that can be done here.
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
// The same of a name and mode that stand, with `defaults` that are complete and so may have what no
// constructor takes.
absl::StatusOr<Proposal> MakeProposalWithDefaults(const std::string& name,
                                                  const std::vector<ParameterGroup>& groups,
                                                  const std::string& kind, OptionMap defaults,
                                                  const Mode& mode, int num_servers);

// Writes the values that the staging asks this session (`session_header`) for to all servers.
// Blocks. FAILED_PRECONDITION: the staging is of other parameters.
absl::Status StageValues(const ClientCore& client, const v1::CallHeader& session_header,
                         const Proposal& proposal, const v1::ProposeReply::Staging& staging,
                         absl::Time deadline);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_PROPOSAL_H_
