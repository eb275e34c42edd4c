// Checkpoints as the source of a change: of a restore, and of a load.

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/optimizer_factory.h"
#include "shardstep/optim/options/state_spec.h"
#include "shardstep/server/coordinator.h"
#include "shardstep/server/described_states.h"
#include "shardstep/server/optimizer_plan.h"
#include "shardstep/sharding/plan.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

// A spec that the fleet can follow: Chunk over all its servers; absent, with true in `*anew`, where
// it names a server that is not there.
std::optional<ShardingSpec> SpecFor(const std::optional<ShardingSpec>& spec, int old_servers,
                                    int servers, bool* anew) {
  if (!spec.has_value()) return spec;
  if (const auto* chunk = std::get_if<Chunk>(&*spec)) {
    if (old_servers == servers || chunk->placements.empty()) return spec;
    Chunk over_all;
    over_all.dim = chunk->dim;
    for (int rank = 0; rank < servers; ++rank) {
      over_all.placements.push_back({rank, chunk->placements[0].device});
    }
    return over_all;
  }
  bool missing = false;
  if (const auto* whole = std::get_if<Whole>(&*spec)) missing = whole->server_rank >= servers;
  if (const auto* enumerable = std::get_if<Enumerable>(&*spec)) {
    for (const ShardMetadata& shard : enumerable->shards) {
      missing = missing || shard.placement.server_rank >= servers;
    }
  }
  if (!missing) return spec;
  *anew = true;
  return std::nullopt;
}

}  // namespace

void Coordinator::ProposeRestore(const v1::ProposeRequest& request, Caller caller,
                                 Reply<v1::ProposeReply> reply) {
  if (state_ == State::kRecovering) return reply(Recovering());
  const std::string& id = request.restore().checkpoint_id();
  if (request.header().request_id().empty()) {
    return reply(absl::InvalidArgumentError("the call has no request id"));
  }
  const std::string key = absl::StrCat("restore ", id, " ", request.header().request_id());
  if (JoinRewind(key, {0, 0, caller, reply})) return;
  if (staged_ != nullptr) return reply(Busy());
  staged_ = std::make_unique<Staged>();
  staged_->kind = Staged::Kind::kRestore;
  staged_->cause = v1::RollBack::RESTORE;
  staged_->key = key;
  staged_->proposers.push_back({0, 0, caller, reply});
  ReadManifest(id);
}

void Coordinator::ReadManifest(const std::string& checkpoint_id, uint64_t lineage) {
  staged_->change.set_checkpoint_id(checkpoint_id);
  staged_->manifest_request = ++last_staging_;
  v1::PeerMessage message;
  message.mutable_read_manifest()->set_request(staged_->manifest_request);
  message.mutable_read_manifest()->set_checkpoint_id(checkpoint_id);
  message.mutable_read_manifest()->set_newest_of_lineage(lineage);
  SendTo(0, std::move(message));
}

void Coordinator::OnManifestRead(const v1::ManifestRead& read) {
  if (staged_ == nullptr || staged_->staging != 0 || staged_->manifest_request != read.request()) {
    return;
  }
  if (read.has_error()) {
    const absl::Status error = FromRichStatus(read.error());
    const bool none = staged_->cause == v1::RollBack::FAILURE && absl::IsNotFound(error);
    const bool gone = none && !last_checkpoint_.empty();
    // Not at once: a coordinator that was replaced finds its successor's checkpoints, and loses its
    // servers before it asks again.
    no_return_ = gone && failed_return_ && CheckAllThere().ok();
    failed_return_ = gone;
    DropStaged(error);
    // It never had one, so nobody was told that it exists: whoever wants it makes it anew.
    if (none && last_checkpoint_.empty())
      Delete({}, [](const absl::StatusOr<v1::ProposeReply>&) {});
    return;
  }
  const v1::CheckpointFacts& facts = read.facts();
  staged_->change.set_checkpoint_id(facts.checkpoint_id());
  if (staged_->kind == Staged::Kind::kRestore) {
    const absl::Status begun = BeginRestore(staged_.get(), facts);
    if (!begun.ok()) DropStaged(begun);
    return;
  }
  v1::LoadChange load;
  const v1::Description& description = facts.description();
  for (const v1::ParamGroup& group : description.groups()) {
    v1::NamedGroup* named = load.add_groups();
    *named->mutable_options() = group.options();
    for (const uint32_t parameter : group.parameters()) {
      named->add_parameters(description.definition().parameters(parameter).name());
    }
  }
  for (const v1::StagedChange::Tensors& stored : facts.tensors()) {
    const v1::Parameter& parameter = description.definition().parameters(stored.parameter());
    v1::LoadChange::Tensors* tensors = load.add_tensors();
    tensors->set_parameter(parameter.name());
    tensors->set_dtype(parameter.dtype());
    *tensors->mutable_sizes() = parameter.sizes();
    tensors->set_value(stored.value());
    for (const uint32_t state : stored.states()) {
      tensors->add_states(description.states(state - 1).name());
    }
  }
  *load.mutable_trainers() = description.trainers();
  load.set_version(facts.version());
  const absl::Status begun = BeginLoad(staged_.get(), load);
  if (!begun.ok()) DropStaged(begun);
}

absl::Status Coordinator::BeginRestore(Staged* staged, const v1::CheckpointFacts& facts) {
  SHARDSTEP_ASSIGN_OR_RETURN(OptimizerDescription stored,
                             DescriptionFromProto(facts.description()));
  if (stored.definition.name != name_) {
    return absl::InvalidArgumentError(absl::StrCat("checkpoint \"", facts.checkpoint_id(),
                                                   "\" is of optimizer \"", stored.definition.name,
                                                   "\", the call of \"", name_, "\""));
  }
  int old_servers = 0;
  for (const PlannedShard& shard : stored.plan.shards) {
    old_servers = std::max(old_servers, shard.metadata.placement.server_rank + 1);
  }
  for (ParameterShape& parameter : stored.definition.parameters) {
    bool anew = false;
    parameter.spec = SpecFor(parameter.spec, old_servers, env_.servers, &anew);
    if (anew) staged->report.add_placed_anew(parameter.name);
  }
  SHARDSTEP_ASSIGN_OR_RETURN(
      const Plan plan,
      MakeOptimizerPlan(stored.definition.kind, stored.definition.parameters, env_.servers));
  SHARDSTEP_ASSIGN_OR_RETURN(const auto optimizer, MakeOptimizer(stored.definition.kind));
  const std::vector<StateSpec> specs =
      DescribedStates(optimizer->AllStates(), stored.definition.parameters);
  for (v1::StagedChange::Tensors tensors : facts.tensors()) {
    for (uint32_t& state : *tensors.mutable_states()) {
      const std::string& name = stored.states[state - 1].name;
      const auto spec = std::find_if(specs.begin(), specs.end(),
                                     [&](const StateSpec& known) { return known.name == name; });
      if (spec == specs.end()) {
        return absl::InvalidArgumentError(absl::StrCat("checkpoint \"", facts.checkpoint_id(),
                                                       "\": state \"", name, "\" is not one of ",
                                                       stored.definition.kind));
      }
      state = spec - specs.begin() + 1;
      // The master is the value.
      if (name == kMasterState) tensors.set_value(false);
    }
    *staged->change.add_tensors() = std::move(tensors);
  }
  staged->definition = std::move(stored.definition);
  staged->groups = std::move(stored.groups);
  staged->version = facts.version();
  staged->replaced_lineage = facts.lineage();
  // Numbers of this fleet may be as low as those of the one that wrote it.
  last_lineage_ = std::max(last_lineage_, facts.lineage());
  staged->trainers.assign(facts.description().trainers().begin(),
                          facts.description().trainers().end());
  staged->last_session = facts.last_session();
  return OpenStaging(staged, plan, facts.description().created_groups());
}

}  // namespace shardstep
