#include "shardstep/client/proposal.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/client/state_write.h"
#include "shardstep/client/tensor_cut.h"
#include "shardstep/client/write_feed.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/optim/options/param_group.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/plan.h"
#include "shardstep/sharding/status_macros.h"

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
absl::StatusOr<std::vector<std::vector<OutgoingSlice>>> CutValues(const OptimizerIndex& index,
                                                                  const Proposal& proposal,
                                                                  bool whole_tensors,
                                                                  int num_servers) {
  std::vector<std::vector<OutgoingSlice>> slices(num_servers);
  for (size_t i = 0; i < proposal.blocks.size(); ++i) {
    if (!whole_tensors && proposal.regions[i].empty()) continue;
    const ParameterShape& proposed = proposal.definition.parameters[i];
    SHARDSTEP_ASSIGN_OR_RETURN(const int parameter, index.Find(proposed.name));
    const ParameterInfo& staged = index.parameters()[parameter];
    if (staged.dtype != proposed.dtype || staged.sizes != proposed.sizes) {
      return absl::FailedPreconditionError(
          absl::StrCat("parameter \"", proposed.name, "\": staged with another shape or dtype"));
    }
    const auto [first, end] = index.ShardsOf(parameter);
    for (int shard = first; shard < end; ++shard) {
      const int rank = index.shard(shard).metadata.placement.server_rank;
      for (const Block& block : proposal.blocks[i]) {
        CutBlock(index, shard, /*tensor=*/0, block, &slices[rank]);
      }
    }
  }
  return slices;
}

}  // namespace

absl::StatusOr<Proposal> MakeProposal(const std::string& name,
                                      const std::vector<ParameterGroup>& groups,
                                      const OptimizerOptions& optimizer, const Mode& mode,
                                      int trainer_rank, int num_servers) {
  SHARDSTEP_RETURN_IF_ERROR(ValidateOptimizerName(name));
  SHARDSTEP_RETURN_IF_ERROR(CheckTrainerRank(mode, trainer_rank));
  SHARDSTEP_ASSIGN_OR_RETURN(OptionMap defaults, CompleteOptions(optimizer.kind, optimizer.given));
  return MakeProposalWithDefaults(name, groups, optimizer.kind, std::move(defaults), mode,
                                  num_servers);
}

absl::StatusOr<Proposal> MakeProposalWithDefaults(const std::string& name,
                                                  const std::vector<ParameterGroup>& groups,
                                                  const std::string& kind, OptionMap defaults,
                                                  const Mode& mode, int num_servers) {
  Proposal proposal;
  OptimizerDefinition& definition = proposal.definition;
  definition.name = name;
  definition.kind = kind;
  definition.mode = mode;
  definition.defaults = std::move(defaults);
  std::vector<const NamedTensor*> tensors;
  for (const ParameterGroup& group : groups) {
    ParamGroup named;
    named.options = group.options;
    for (const NamedTensor& tensor : group.parameters) {
      const bool sharded = !tensor.local_shards.empty();
      named.params.push_back(tensor.name);
      definition.parameters.push_back(
          {tensor.name, sharded ? tensor.local_shards[0].view.dtype : tensor.value.dtype,
           sharded ? tensor.global_sizes : tensor.value.sizes, tensor.spec, tensor.master});
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

absl::Status StageValues(const ClientCore& client, const v1::CallHeader& session_header,
                         const Proposal& proposal, const v1::ProposeReply::Staging& staging,
                         absl::Time deadline) {
  SHARDSTEP_ASSIGN_OR_RETURN(
      DescribedOptimizer described,
      DescribeOptimizer(client, session_header, staging.staging(), deadline));
  const OptimizerIndex index(std::move(described.description));
  v1::WriteBegin begin;
  *begin.mutable_header() = session_header;
  begin.mutable_header()->set_plan_id(staging.plan_id());
  begin.set_staging(staging.staging());
  SHARDSTEP_ASSIGN_OR_RETURN(
      std::vector<std::vector<OutgoingSlice>> values,
      CutValues(index, proposal, staging.whole_tensors(), client.connection().num_servers()));
  ReadySlices slices(std::move(values));
  return WriteStateToAll(&client.connection(), begin, &slices, client.policy(), deadline);
}

}  // namespace shardstep::internal
