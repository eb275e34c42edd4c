#include "shardstep/client/creation.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "shardstep/client/state_write.h"
#include "shardstep/client/tensor_cut.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/optim/options/param_group.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/plan.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/pages.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

absl::Status CheckTrainerRank(const Mode& mode, int trainer_rank) {
  const Synchronous* const synchronous = std::get_if<Synchronous>(&mode);
  if (synchronous != nullptr &&
      (synchronous->trainers < 1 || synchronous->trainers > kMaxTrainers)) {
    return absl::InvalidArgumentError(
        absl::StrCat("trainers: expected 1 to ", kMaxTrainers, ", got ", synchronous->trainers));
  }
  const int trainers = synchronous != nullptr ? synchronous->trainers : kMaxTrainers;
  if (trainer_rank >= 0 && trainer_rank < trainers) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("trainer rank: expected 0 to ", trainers - 1, ", got ", trainer_rank));
}

// Two parameters in one place would be stepped apart and pulled over each other.
absl::Status CheckApart(const std::vector<ParameterShape>& parameters,
                        const std::vector<std::vector<Block>>& blocks) {
  struct Range {
    uintptr_t begin;
    uintptr_t end;
    size_t parameter;
  };
  std::vector<Range> ranges;
  for (size_t i = 0; i < blocks.size(); ++i) {
    for (const Block& block : blocks[i]) {
      const uintptr_t begin = reinterpret_cast<uintptr_t>(block.view.data);
      const uintptr_t bytes = static_cast<uintptr_t>(block.view.num_bytes());
      if (bytes > 0) ranges.push_back({begin, begin + bytes, i});
    }
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].begin >= ranges[i - 1].end) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "parameters \"", parameters[ranges[i - 1].parameter].name, "\" and \"",
        parameters[ranges[i].parameter].name, "\" share memory: one tensor under two names"));
  }
  return absl::OkStatus();
}

// The slices of all values that the staging asks this session for, by server rank.
std::vector<std::vector<OutgoingSlice>> CutValues(const OptimizerIndex& index,
                                                  const Proposal& proposal, bool whole_tensors,
                                                  int num_servers) {
  std::vector<std::vector<OutgoingSlice>> slices(num_servers);
  for (size_t i = 0; i < proposal.blocks.size(); ++i) {
    if (!whole_tensors && proposal.regions[i].empty()) continue;
    const auto [first, end] = index.ShardsOf(static_cast<int>(i));
    for (int shard = first; shard < end; ++shard) {
      const int rank = index.shard(shard).metadata.placement.server_rank;
      for (const Block& block : proposal.blocks[i]) {
        CutBlock(index, shard, /*tensor=*/0, block, &slices[rank]);
      }
    }
  }
  return slices;
}

// A staging that is over or was never this one's: whoever proposes again is told what holds now.
bool StagingIsOver(const absl::Status& status) {
  return status.code() == absl::StatusCode::kNotFound ||
         status.code() == absl::StatusCode::kAborted || ReasonOf(status) == v1::PLAN_CHANGED;
}

absl::Status Stage(const ClientCore& client, const v1::CallHeader& session_header,
                   const Proposal& proposal, const v1::ProposeReply::Staging& staging,
                   absl::Time deadline) {
  SHARDSTEP_ASSIGN_OR_RETURN(
      DescribedOptimizer described,
      DescribeOptimizer(client, session_header, staging.staging(), deadline));
  // What is cut by the plan must be what was proposed.
  SHARDSTEP_RETURN_IF_ERROR(FirstDifference(described.description.definition, proposal.definition));
  const OptimizerIndex index(std::move(described.description));
  v1::WriteBegin begin;
  *begin.mutable_header() = session_header;
  begin.mutable_header()->set_plan_id(staging.plan_id());
  begin.set_staging(staging.staging());
  return WriteStateToAll(
      &client.connection(), begin,
      CutValues(index, proposal, staging.whole_tensors(), client.connection().num_servers()),
      client.policy(), deadline);
}

absl::Status Propose(const ClientCore& client, const v1::CallHeader& session_header,
                     const Proposal& proposal, absl::Time deadline) {
  const PagedMessage pages(DefinitionToProto(proposal.definition).SerializeAsString());
  const RetryPolicy& policy = client.policy();
  Backoff backoff(policy.first_backoff, policy.longest_backoff, policy.random);
  v1::ProposeRequest request;
  *request.mutable_header() = session_header;
  uint32_t page = 0;
  const absl::Time started = client.Now();
  while (true) {
    SHARDSTEP_ASSIGN_OR_RETURN(*request.mutable_create(), pages.page(page));
    const absl::Time called = client.Now();
    SHARDSTEP_ASSIGN_OR_RETURN(const v1::ProposeReply reply,
                               client.connection().Propose(request, deadline));
    std::string waits_for = "the coordinator";
    if (reply.has_done()) return absl::OkStatus();
    if (reply.has_need_page()) {
      page = reply.need_page().index();
      continue;
    }
    if (reply.has_staging()) {
      const absl::Status status =
          Stage(client, session_header, proposal, reply.staging(), deadline);
      if (status.ok()) {
        request.set_staged(reply.staging().staging());
        continue;
      }
      if (!StagingIsOver(status)) return status;
    } else if (reply.has_pending() && reply.pending().staged_by_size() > 0) {
      waits_for = absl::StrCat("the values of trainer ranks ",
                               absl::StrJoin(reply.pending().staged_by(), ", "));
    }
    const absl::Time now = client.Now();
    if (now >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat("create \"", proposal.definition.name,
                                                      "\": waited ", Seconds(now - started),
                                                      " for ", waits_for));
    }
    // Long polls pace themselves; answers that come at once do not.
    if (now - called < policy.first_backoff) {
      policy.timer->SleepFor(std::min(backoff.Next(), deadline - now));
    }
  }
}

}  // namespace

absl::StatusOr<Proposal> MakeProposal(const std::string& name,
                                      const std::vector<ParameterGroup>& groups,
                                      const OptimizerOptions& optimizer, const Mode& mode,
                                      int trainer_rank, int num_servers) {
  SHARDSTEP_RETURN_IF_ERROR(ValidateOptimizerName(name));
  SHARDSTEP_RETURN_IF_ERROR(CheckTrainerRank(mode, trainer_rank));
  Proposal proposal;
  OptimizerDefinition& definition = proposal.definition;
  definition.name = name;
  definition.kind = optimizer.kind;
  definition.mode = mode;
  SHARDSTEP_ASSIGN_OR_RETURN(definition.defaults, CompleteOptions(optimizer.kind, optimizer.given));
  std::vector<const NamedTensor*> tensors;
  for (const ParameterGroup& group : groups) {
    ParamGroup named;
    named.options = group.options;
    for (const NamedTensor& tensor : group.parameters) {
      const bool sharded = !tensor.local_shards.empty();
      named.params.push_back(tensor.name);
      definition.parameters.push_back(
          {tensor.name, sharded ? tensor.local_shards[0].view.dtype : tensor.value.dtype,
           sharded ? tensor.global_sizes : tensor.value.sizes, tensor.spec});
      definition.sharded.push_back(sharded);
      tensors.push_back(&tensor);
    }
    SHARDSTEP_ASSIGN_OR_RETURN(ParamGroup complete,
                               CompleteGroup(definition.kind, definition.defaults, named));
    definition.groups.push_back(std::move(complete));
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckGroups(definition.groups));
  // Planned here only for the checks, which are the coordinator's own.
  SHARDSTEP_ASSIGN_OR_RETURN(Plan plan, MakePlan(definition.parameters, num_servers));
  const OptimizerIndex index({definition, std::move(plan), definition.groups, {}});
  for (size_t i = 0; i < tensors.size(); ++i) {
    SHARDSTEP_ASSIGN_OR_RETURN(std::vector<Block> blocks,
                               index.BlocksOf(static_cast<int>(i), *tensors[i]));
    std::vector<Region>& regions = proposal.regions.emplace_back();
    for (const LocalShard& local : tensors[i]->local_shards) {
      regions.push_back(RegionOf(local.metadata));
    }
    proposal.blocks.push_back(std::move(blocks));
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckApart(definition.parameters, proposal.blocks));
  return proposal;
}

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
  SHARDSTEP_ASSIGN_OR_RETURN(
      DescribedOptimizer described,
      DescribeOptimizer(*client, session->header(), /*staging=*/0, deadline));
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
