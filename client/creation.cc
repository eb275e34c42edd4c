#include "shardstep/client/creation.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/client/change_proposal.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/pages.h"

namespace shardstep::internal {
namespace {

absl::Status Propose(const ClientCore& client, const v1::CallHeader& session_header,
                     const Proposal& proposal, absl::Time deadline) {
  const PagedMessage pages(DefinitionToProto(proposal.definition).SerializeAsString());
  Change change;
  change.what = absl::StrCat("create \"", proposal.definition.name, "\"");
  change.fill = [&pages](uint32_t page, v1::ProposeRequest* request) {
    SHARDSTEP_ASSIGN_OR_RETURN(*request->mutable_create(), pages.page(page));
    return absl::OkStatus();
  };
  change.stage = [&](const v1::ProposeReply::Staging& staging) {
    return StageValues(client, session_header, proposal, staging, deadline);
  };
  return ProposeChange(client, session_header, change, deadline).status();
}

}  // namespace

absl::StatusOr<std::unique_ptr<OptimizerCore>> CreateOnFleet(
    std::shared_ptr<const ClientCore> client, const Proposal& proposal, int trainer_rank,
    absl::Time deadline) {
  std::vector<v1::DeclaredRegion> declared;
  for (size_t i = 0; i < proposal.regions.size(); ++i) {
    for (const Region& region : proposal.regions[i]) {
      v1::DeclaredRegion& out = declared.emplace_back();
      out.set_parameter(proposal.definition.parameters[i].name);
      *out.mutable_region() = RegionToProto(region);
    }
  }
  SHARDSTEP_ASSIGN_OR_RETURN(
      std::unique_ptr<Session> session,
      Session::Open(client, proposal.definition.name, trainer_rank, std::move(declared), deadline));
  SHARDSTEP_RETURN_IF_ERROR(Propose(*client, session->header(), proposal, deadline));
  const auto describe = [&] {
    return DescribeOptimizer(*client, session->header(), /*staging=*/0, deadline);
  };
  SHARDSTEP_ASSIGN_OR_RETURN(DescribedOptimizer described, describe());
  // The session was opened in another history: its trainer state was that one's.
  while (session->opened().lineage() != described.lineage) {
    SHARDSTEP_RETURN_IF_ERROR(session->Refresh(deadline));
    SHARDSTEP_ASSIGN_OR_RETURN(described, describe());
  }
  // Later groups may follow; what was proposed here stands first.
  if (described.description.definition.parameters.size() < proposal.regions.size()) {
    return absl::InternalError(absl::StrCat("optimizer \"", proposal.definition.name,
                                            "\" has fewer parameters than were proposed"));
  }
  DeclaredRegions regions = proposal.regions;
  regions.resize(described.description.definition.parameters.size());
  return std::make_unique<OptimizerCore>(std::move(client), std::move(session),
                                         std::move(described), std::move(regions));
}

}  // namespace shardstep::internal
