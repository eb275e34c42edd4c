// How a shard host takes up changes that bring values: staging, prepare, commit.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/server/faults.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {

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
  SHARDSTEP_RETURN_IF_ERROR(SHARDSTEP_FAILPOINT("host.staging_opened"));
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

void ShardHost::PrepareStaged(std::shared_ptr<const v1::Prepare> prepare) {
  v1::Prepared answer;
  answer.set_version(prepare->version());
  *answer.mutable_ballot() = prepare->ballot();
  auto built = BuildStaged(std::move(prepare));
  if (!built.ok()) {
    *answer.mutable_error() = ToRichStatus(built.status());
    AnswerPrepared(answer);
    return Done();
  }
  auto change = std::make_shared<PreparedChange>(*std::move(built));
  change->answer = answer;
  if (!wal()) {
    KeepPrepared(std::move(*change));
    return Done();
  }
  // What was staged becomes the base that a recovery begins with. The file is written before the
  // record that names it.
  auto opened = std::make_shared<std::unique_ptr<WriteAheadLog>>();
  RunBlocking(
      env_.disk,
      [this, change, opened]() -> absl::Status {
        WriteAheadLog* log = log_ == nullptr ? nullptr : log_->log();
        if (log == nullptr) {
          if (!lost_because_.empty()) {
            SHARDSTEP_RETURN_IF_ERROR(env_.catalog->SetLogAside(name_));
          }
          SHARDSTEP_ASSIGN_OR_RETURN(*opened, OpenLog());
          log = opened->get();
        }
        SHARDSTEP_ASSIGN_OR_RETURN(
            change->staged_file, log->WriteStaged(BaseHeaderOf(*change), change->staged->state()));
        return SHARDSTEP_FAILPOINT("host.staged_written");
      },
      [self = shared_from_this(), this, change, opened](const absl::Status& status) {
        if (*opened != nullptr) StartLog(std::move(*opened));
        if (status.ok()) {
          KeepPrepared(std::move(*change));
        } else {
          *change->answer.mutable_error() = ToRichStatus(status);
          AnswerPrepared(change->answer);
        }
        Done();
      });
}

absl::StatusOr<ShardHost::PreparedChange> ShardHost::BuildStaged(
    std::shared_ptr<const v1::Prepare> prepare) {
  const v1::PrepareStaged& request = prepare->staged();
  if (!staging_.has_value() || staging_->id() != request.staging() || !staging_->complete()) {
    return absl::UnavailableError(absl::StrCat("staging ", request.staging(),
                                               " is not complete on server ", env_.server_rank,
                                               " any more; propose again"));
  }
  PreparedChange change;
  change.request = std::move(prepare);
  change.layout = staging_->layout();
  change.lineage = request.lineage();
  change.checkpoint_id = staging_->checkpoint_id();
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
    shards.push_back({shard.parameter, std::move(shard.value), layout.local[i].region,
                      layout.parameters[shard.parameter].sizes});
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

void ShardHost::CommitStaged(const v1::Commit& commit, PreparedChange change) {
  auto staged = std::make_shared<PreparedChange>(std::move(change));
  if (!staged->staged.has_value()) {
    // It was prepared before this server started.
    auto read = std::make_shared<absl::StatusOr<PreparedChange>>(absl::UnknownError(""));
    WriteAheadLog* const log = recovering_ ? replayed_.get() : log_->log();
    return RunBlocking(
        env_.disk,
        [this, log, staged, read]() -> absl::Status {
          SHARDSTEP_ASSIGN_OR_RETURN(Base base, log->ReadStaged(staged->staged_file));
          *read = FromBase(std::move(base));
          return read->status();
        },
        [self = shared_from_this(), this, commit, staged, read](const absl::Status& status) {
          if (!status.ok()) return Applied(commit, status);
          PreparedChange whole = *std::move(*read);
          whole.request = staged->request;
          whole.staged_file = staged->staged_file;
          whole.lineage = staged->request->staged().lineage();
          whole.extends = whole.lineage == lineage_ && optimizer_.has_value();
          CommitStaged(commit, std::move(whole));
        });
  }
  if (recovering_) {
    Adopt(commit, staged.get());
    return Applied(commit, absl::OkStatus());
  }
  v1::CatalogEntry entry;
  *entry.mutable_description() = staged->layout->description;
  entry.set_lineage(staged->lineage);
  entry.set_version(commit.version());
  // In one entry: whoever finds the new lineage finds what it began with.
  entry.set_last_checkpoint(staged->checkpoint_id.empty() ? last_checkpoint_
                                                          : staged->checkpoint_id);
  RunBlocking(
      env_.executor, [this, entry = std::move(entry)] { return env_.catalog->Write(name_, entry); },
      [self = shared_from_this(), this, commit, staged](absl::Status status) {
        // What the log has needs no note.
        if (wal()) status = absl::OkStatus();
        if (status.ok()) Adopt(commit, staged.get());
        Applied(commit, status);
      });
}

void ShardHost::Adopt(const v1::Commit& commit, PreparedChange* change) {
  layout_ = change->layout;
  rounds_.reset();
  optimizer_ = std::move(change->staged);
  // What counts is what stands now: the values, as after a create.
  shard_reservations_.clear();
  change->reservations.clear();
  MemoryBudget::Reservation values;
  if (values.Grow(env_.shard_memory, layout_->local_bytes)) {
    shard_reservations_.push_back(std::move(values));
  }
  version_ = noted_version_ = commit.version();
  if (!change->checkpoint_id.empty()) last_checkpoint_ = change->checkpoint_id;
  lost_by_.reset();
  lost_because_.clear();
  chain_hash_ = ChainHash(change->extends ? chain_hash_ : kEmptyChain,
                          absl::StrCat(change->lineage, " ", version_));
  if (env_.server_rank == kCoordinatorRank) SetMemory(change->request->staged().memory());
  if (change->extends) {
    pushes_.ExtendLayout(layout_);
  } else {
    pushes_.SetLayout(layout_);
  }
  lineage_ = change->lineage;
}

}  // namespace shardstep
