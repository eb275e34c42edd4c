#include "shardstep/client/group_addition.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/client/change_proposal.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/pages.h"

namespace shardstep::internal {

absl::StatusOr<Proposal> MakeGroupProposal(const OptimizerIndex& index, const ParameterGroup& group,
                                           int num_servers) {
  for (const NamedTensor& tensor : group.parameters) {
    if (tensor.local_shards.empty()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "parameter \"", tensor.name,
        "\": a group that is added takes whole tensors; the local shards of a ShardedTensor are "
        "declared when the optimizer is created"));
  }
  const OptimizerDefinition& definition = index.description().definition;
  return MakeProposalWithDefaults(definition.name, {group}, definition.kind, definition.defaults,
                                  definition.mode, num_servers);
}

absl::StatusOr<v1::ProposeReply::Done> AddGroupOnFleet(const ClientCore& client,
                                                       const v1::CallHeader& header,
                                                       const ParameterGroup& group,
                                                       const Proposal& proposal,
                                                       absl::Time deadline) {
  v1::AddParamGroupChange addition;
  *addition.mutable_parameters() =
      std::move(*DefinitionToProto(proposal.definition).mutable_parameters());
  *addition.mutable_options() = OptionMapToProto(group.options);
  const PagedMessage pages(addition.SerializeAsString());
  v1::CallHeader session = header;
  session.clear_lineage();
  Change change;
  change.what = absl::StrCat("add_param_group to \"", header.optimizer(), "\"");
  change.fill = [&pages](uint32_t page, v1::ProposeRequest* request) {
    SHARDSTEP_ASSIGN_OR_RETURN(*request->mutable_add_param_group(), pages.page(page));
    return absl::OkStatus();
  };
  change.stage = [&](const v1::ProposeReply::Staging& staging) {
    return StageValues(client, session, proposal, staging, deadline);
  };
  return ProposeChange(client, header, change, deadline);
}

}  // namespace shardstep::internal
