// How a shard host executes changes: staging, prepare, commit, holds.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

bool SameBallot(const v1::Ballot& a, const v1::Ballot& b) {
  return a.coordinator_incarnation() == b.coordinator_incarnation() && a.attempt() == b.attempt();
}

int64_t BytesOf(const LocalState& state, v1::SnapshotKind kind) {
  int64_t bytes = 0;
  for (const LocalState::Shard& shard : state.shards) {
    bytes += shard.value.nbytes();
    if (kind != v1::EVERYTHING) continue;
    for (const TensorState& tensor : shard.states) bytes += tensor.tensor.nbytes();
  }
  return bytes;
}

}  // namespace

void ShardHost::OnStage(const v1::Stage& stage) {
  if (stage.change().index() == 0) staging_pages_ = PageCollector();
  absl::Status status = staging_pages_.Add(stage.change());
  if (status.ok() && !staging_pages_.complete()) return;
  staging_.reset();
  if (status.ok()) status = BeginStaging(stage.staging());
  if (!status.ok()) ReportStagingError(stage.staging(), status);
}

absl::Status ShardHost::BeginStaging(uint64_t staging) {
  SHARDSTEP_ASSIGN_OR_RETURN(const std::string bytes, staging_pages_.Take());
  v1::StagedChange change;
  if (!change.ParseFromString(bytes)) {
    return absl::InvalidArgumentError("the change does not parse");
  }
  SHARDSTEP_ASSIGN_OR_RETURN(
      auto layout, Layout::Make(std::move(*change.mutable_description()), env_.server_rank));
  SHARDSTEP_ASSIGN_OR_RETURN(Staging made, Staging::Make(staging, layout, change));
  const int64_t free = env_.shard_memory->limit() - env_.shard_memory->used();
  if (made.wanted_bytes() > free) {
    return absl::ResourceExhaustedError(
        absl::StrCat("optimizer \"", name_, "\": its shards on server ", env_.server_rank, " take ",
                     made.wanted_bytes(), " bytes, ", free, " are left of --shard-memory"));
  }
  const v1::Mode& mode = layout->description.definition().mode();
  const int64_t trainers = mode.has_synchronous() ? mode.synchronous().trainers() : 1;
  if (layout->local_bytes > env_.push_memory->limit() / trainers) {
    return absl::ResourceExhaustedError(
        absl::StrCat("optimizer \"", name_, "\": one gradient of each of ", trainers,
                     " trainers takes ", layout->local_bytes, " bytes each on server ",
                     env_.server_rank, ", --push-memory is ", env_.push_memory->limit()));
  }
  staging_.emplace(std::move(made));
  if (change.checkpoint_id().empty()) {
    ReportStaging();
  } else {
    FillFromCheckpoint(change.checkpoint_id());
  }
  return absl::OkStatus();
}

void ShardHost::ReportStagingError(uint64_t staging, const absl::Status& error) {
  v1::PeerReply reply;
  reply.mutable_staging_state()->set_staging(staging);
  *reply.mutable_staging_state()->mutable_error() = ToRichStatus(error);
  Answer(std::move(reply));
}

void ShardHost::ReportStaging() {
  v1::PeerReply reply;
  reply.mutable_staging_state()->set_staging(staging_->id());
  reply.mutable_staging_state()->set_complete(staging_->complete());
  Answer(std::move(reply));
}

void ShardHost::OnPrepare(const v1::Prepare& prepare) {
  promise_ = prepare.ballot();
  switch (prepare.change_case()) {
    case v1::Prepare::kStep:
      return PrepareStep(prepare);
    case v1::Prepare::kStaged:
      return PrepareStaged(prepare);
    default: {
      PreparedChange& change = prepared_[prepare.version()];
      change = PreparedChange();
      change.ballot = prepare.ballot();
      v1::Prepared answer;
      answer.set_version(prepare.version());
      *answer.mutable_ballot() = prepare.ballot();
      return AnswerPrepared(std::move(answer));
    }
  }
}

void ShardHost::AnswerPrepared(v1::Prepared answer) {
  v1::PeerReply reply;
  *reply.mutable_prepared() = std::move(answer);
  Answer(std::move(reply));
  Done();
}

void ShardHost::PrepareStep(const v1::Prepare& prepare) {
  v1::Prepared answer;
  answer.set_version(prepare.version());
  *answer.mutable_ballot() = prepare.ballot();
  absl::Status status = CheckLive({});
  std::vector<std::vector<std::shared_ptr<const Push>>> pushes;
  std::vector<v1::PushRange> missing;
  for (const v1::Contribution& contribution : prepare.step().contributions()) {
    if (!status.ok()) break;
    auto collected = pushes_.Collect(contribution, &missing);
    status = collected.status();
    if (collected.ok()) pushes.push_back(*std::move(collected));
  }
  for (const v1::PushRange& range : missing) *answer.add_missing() = range;
  std::shared_ptr<shardstep::PreparedStep> step;
  if (status.ok() && missing.empty()) {
    auto created = PreparedStep::Create(layout_, prepare.step(), pushes);
    status = created.status();
    if (created.ok()) step = *std::move(created);
  }
  if (step == nullptr) {
    if (!status.ok()) *answer.mutable_error() = ToRichStatus(status);
    return AnswerPrepared(std::move(answer));
  }
  RunBlocks(
      step->elements(), step->num_blocks(), [step](size_t block) { step->RunBlock(block); },
      [self = shared_from_this(), this, step, answer]() mutable {
        const absl::Status finished = step->Finish(&answer);
        if (finished.ok()) {
          PreparedChange& change = prepared_[answer.version()];
          change = PreparedChange();
          change.ballot = answer.ballot();
          change.step = step;
        } else {
          *answer.mutable_error() = ToRichStatus(finished);
        }
        AnswerPrepared(std::move(answer));
      });
}

void ShardHost::PrepareStaged(const v1::Prepare& prepare) {
  v1::Prepared answer;
  answer.set_version(prepare.version());
  *answer.mutable_ballot() = prepare.ballot();
  auto change = BuildStaged(prepare);
  if (change.ok()) {
    prepared_[prepare.version()] = *std::move(change);
  } else {
    *answer.mutable_error() = ToRichStatus(change.status());
  }
  AnswerPrepared(std::move(answer));
}

absl::StatusOr<ShardHost::PreparedChange> ShardHost::BuildStaged(const v1::Prepare& prepare) {
  if (!staging_.has_value() || staging_->id() != prepare.staged().staging() ||
      !staging_->complete()) {
    return absl::InternalError(
        absl::StrCat("staging ", prepare.staged().staging(), " is not complete here"));
  }
  PreparedChange change;
  change.ballot = prepare.ballot();
  change.layout = staging_->layout();
  change.lineage = prepare.staged().lineage();
  const bool keep_state = staging_->keep_state();
  const bool keep_groups = staging_->keep_groups();
  if ((keep_state || keep_groups) && !optimizer_.has_value()) {
    return absl::InternalError(absl::StrCat("optimizer \"", name_, "\": has no state to keep"));
  }
  change.extends = change.lineage == lineage_ && optimizer_.has_value();
  SHARDSTEP_ASSIGN_OR_RETURN(LocalState state, staging_->Take(&change.reservations));
  staging_.reset();
  const Layout& layout = *change.layout;
  // Shards that are kept stand first, in the same order: a plan is only ever appended to.
  const auto standing = [&](size_t local) -> const LocalState::Shard* {
    if (!optimizer_.has_value() || local >= layout_->local.size() ||
        layout_->local[local].region != layout.local[local].region ||
        layout_->parameters[layout_->local[local].parameter].name !=
            layout.parameters[layout.local[local].parameter].name) {
      return nullptr;
    }
    return &optimizer_->state().shards[local];
  };
  std::vector<ShardValue> shards;
  std::vector<std::vector<TensorState>> states;
  for (size_t i = 0; i < state.shards.size(); ++i) {
    LocalState::Shard& shard = state.shards[i];
    const LocalState::Shard* const stands = standing(i);
    if (!shard.value.defined()) {
      if (stands == nullptr) {
        return absl::InternalError(absl::StrCat(
            "parameter \"", layout.parameters[shard.parameter].name, "\": has no value to keep"));
      }
      shard.value = stands->value;
    }
    shards.push_back({shard.parameter, std::move(shard.value)});
    states.push_back(keep_state && stands != nullptr ? stands->states : std::move(shard.states));
  }
  if (keep_state) {
    for (size_t i = 0; i < optimizer_->state().scalars.size(); ++i) {
      state.scalars[i] = optimizer_->state().scalars[i];
    }
  }
  std::vector<std::string> names;
  for (const ParameterShape& parameter : layout.parameters) names.push_back(parameter.name);
  SHARDSTEP_ASSIGN_OR_RETURN(auto groups,
                             GroupsFromProto(layout.description.groups(), layout.parameters));
  if (keep_groups) {
    std::copy(optimizer_->groups().begin(), optimizer_->groups().end(), groups.begin());
  }
  SHARDSTEP_ASSIGN_OR_RETURN(change.staged,
                             LocalOptimizer::Create(layout.description.definition().kind(),
                                                    std::move(groups), names, std::move(shards)));
  SHARDSTEP_RETURN_IF_ERROR(change.staged->SetState(std::move(states), std::move(state.scalars)));
  return change;
}

void ShardHost::OnCommit(const v1::Commit& commit) {
  if (commit.decision().outcome() == v1::Decision::ABORT) return Abort(commit);
  auto found = prepared_.find(commit.version());
  if (found == prepared_.end() || !SameBallot(found->second.ballot, commit.ballot())) {
    LoseShards(env_.server_rank);
    return AnswerApplied(
        commit, absl::InternalError(absl::StrCat("server ", env_.server_rank,
                                                 " has not prepared version ", commit.version())));
  }
  PreparedChange change = std::move(found->second);
  prepared_.erase(found);
  if (change.step != nullptr) return CommitStep(commit, std::move(change));
  if (change.staged.has_value()) return CommitStaged(commit, std::move(change));
  CommitDelete(commit);
}

void ShardHost::CommitStep(const v1::Commit& commit, PreparedChange change) {
  const v1::PrepareStep request = change.step->request();
  absl::Status status;
  for (const v1::OptionSetting& setting : request.set_options()) {
    auto value = OptionValueFromProto(setting.option().value());
    status.Update(value.status());
    if (value.ok()) {
      status.Update(optimizer_->SetOption(setting.group(), setting.option().name(), *value));
    }
  }
  const bool update = status.ok() && commit.decision().outcome() == v1::Decision::COMMIT;
  if (update) {
    std::optional<double> coefficient;
    if (commit.decision().has_coefficient()) coefficient = commit.decision().coefficient();
    status = optimizer_->BeginStep(change.step->TakeGradients(), coefficient);
  }
  if (!status.ok()) {
    LoseShards(env_.server_rank);
    return AnswerApplied(commit, status);
  }
  if (!update) return FinishStep(commit, request);
  RunBlocks(
      layout_->local_bytes, optimizer_->num_blocks(),
      [this](size_t block) { optimizer_->RunBlock(block); },
      [self = shared_from_this(), this, commit, request] {
        const absl::Status finished = optimizer_->FinishStep();
        if (finished.ok()) return FinishStep(commit, request);
        LoseShards(env_.server_rank);
        AnswerApplied(commit, finished);
      });
}

void ShardHost::FinishStep(const v1::Commit& commit, const v1::PrepareStep& request) {
  version_ = commit.version();
  for (const v1::Contribution& contribution : request.contributions()) {
    const v1::PushRange& pushes = contribution.pushes();
    const bool consumed = !request.options().keep_gradients() && pushes.first() <= pushes.last();
    pushes_.DropBelow(pushes.session(), consumed ? pushes.last() + 1 : 0);
    pushes_.DropBelow(pushes.session(), contribution.first_live_push());
  }
  AnswerApplied(commit, absl::OkStatus());
}

void ShardHost::CommitStaged(const v1::Commit& commit, PreparedChange change) {
  v1::CatalogEntry entry;
  *entry.mutable_description() = change.layout->description;
  entry.set_lineage(change.lineage);
  entry.set_version(commit.version());
  entry.set_last_checkpoint(last_checkpoint_);
  auto staged = std::make_shared<PreparedChange>(std::move(change));
  RunBlocking([this, entry = std::move(entry)] { return env_.catalog->Write(name_, entry); },
              [self = shared_from_this(), this, commit, staged](absl::Status status) {
                if (status.ok()) Adopt(commit, staged.get());
                AnswerApplied(commit, status);
              });
}

void ShardHost::Adopt(const v1::Commit& commit, PreparedChange* change) {
  layout_ = change->layout;
  optimizer_ = std::move(change->staged);
  // What counts is what stands now: the values, as after a create.
  shard_reservations_.clear();
  change->reservations.clear();
  MemoryBudget::Reservation values;
  if (values.Grow(env_.shard_memory, layout_->local_bytes)) {
    shard_reservations_.push_back(std::move(values));
  }
  version_ = noted_version_ = commit.version();
  lost_by_.reset();
  if (change->extends) {
    pushes_.ExtendLayout(layout_);
  } else {
    pushes_.SetLayout(layout_);
  }
  lineage_ = change->lineage;
}

void ShardHost::CommitDelete(const v1::Commit& commit) {
  DropOptimizer();
  lost_by_.reset();
  version_ = noted_version_ = lineage_ = 0;
  RunBlocking([this] { return env_.catalog->Remove(name_); },
              [self = shared_from_this(), this, commit](absl::Status status) {
                AnswerApplied(commit, status);
              });
}

void ShardHost::Abort(const v1::Commit& commit) {
  for (auto change = prepared_.lower_bound(commit.version()); change != prepared_.end();) {
    if (commit.decision().drop_pushes() && change->first == commit.version() &&
        change->second.step != nullptr) {
      for (const auto& contribution : change->second.step->request().contributions()) {
        const v1::PushRange& pushes = contribution.pushes();
        if (pushes.first() <= pushes.last()) pushes_.DropBelow(pushes.session(), pushes.last() + 1);
      }
    }
    change = prepared_.erase(change);
  }
  Done();
}

void ShardHost::AnswerApplied(const v1::Commit& commit, absl::Status error) {
  v1::PeerReply reply;
  v1::Applied* applied = reply.mutable_applied();
  applied->set_version(commit.version());
  *applied->mutable_ballot() = commit.ballot();
  if (!error.ok()) {
    *applied->mutable_error() = ToRichStatus(error);
  } else if (commit.has_hold()) {
    applied->set_held(TakeHold(commit.hold()));
  }
  Answer(std::move(reply));
  Done();
}

bool ShardHost::TakeHold(const v1::Hold& hold) {
  if (!optimizer_.has_value()) return false;
  auto held = std::make_shared<HeldVersion>();
  // Holds of one version share their buffers, so the second costs nothing.
  for (const auto& [snapshot, other] : holds_) {
    if (other->version == version_ && other->lineage == lineage_ && other->kind >= hold.kind()) {
      holds_[hold.snapshot()] = other;
      return true;
    }
  }
  if (!held->reservation.Grow(env_.snapshot_memory, BytesOf(optimizer_->state(), hold.kind()))) {
    return false;
  }
  held->version = version_;
  held->lineage = lineage_;
  held->kind = hold.kind();
  held->layout = layout_;
  held->state = optimizer_->state();
  held->groups = optimizer_->groups();
  if (hold.kind() != v1::EVERYTHING) {
    for (LocalState::Shard& shard : held->state.shards) shard.states.clear();
    held->state.scalars.clear();
  }
  holds_[hold.snapshot()] = std::move(held);
  return true;
}

void ShardHost::OnHold(const v1::Hold& hold) {
  v1::PeerReply reply;
  reply.mutable_hold_taken()->set_snapshot(hold.snapshot());
  reply.mutable_hold_taken()->set_held(TakeHold(hold));
  reply.mutable_hold_taken()->set_version(version_);
  Answer(std::move(reply));
}

void ShardHost::DropOptimizer() {
  prepared_.clear();
  holds_.clear();
  optimizer_.reset();
  layout_.reset();
  shard_reservations_.clear();
  pushes_.SetLayout(nullptr);
}

void ShardHost::LoseShards(int server) {
  lost_by_ = server;
  DropOptimizer();
}

}  // namespace shardstep
