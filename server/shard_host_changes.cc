// How a shard host executes changes: prepare, commit, holds.

#include <algorithm>
#include <utility>

#include "ATen/ops/from_blob.h"
#include "absl/strings/str_cat.h"
#include "shardstep/server/ballot.h"
#include "shardstep/server/faults.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

// What servers must agree on of a step that was decided.
std::string DescriptorOf(const v1::PrepareStep& step, const v1::Commit& commit) {
  std::string descriptor = absl::StrCat(commit.version(), " ");
  commit.decision().AppendToString(&descriptor);
  const auto& all = step.contributions();
  if (std::all_of(all.begin(), all.end(),
                  [](const v1::Contribution& c) { return c.trainer_state().empty(); })) {
    step.AppendToString(&descriptor);
    return descriptor;
  }
  v1::PrepareStep stateless = step;
  for (v1::Contribution& contribution : *stateless.mutable_contributions()) {
    contribution.clear_trainer_state();
  }
  stateless.AppendToString(&descriptor);
  return descriptor;
}

}  // namespace

void ShardHost::OnPrepare(std::shared_ptr<const v1::Prepare> prepare) {
  SHARDSTEP_PASS("host.prepare");
  switch (prepare->change_case()) {
    case v1::Prepare::kStep:
      return PrepareStep(std::move(prepare));
    case v1::Prepare::kStaged:
      return PrepareStaged(std::move(prepare));
    default: {
      PreparedChange change;
      change.answer.set_version(prepare->version());
      *change.answer.mutable_ballot() = prepare->ballot();
      change.request = std::move(prepare);
      KeepPrepared(std::move(change));
      return Done();
    }
  }
}

void ShardHost::AnswerPrepared(const v1::Prepared& answer) {
  SHARDSTEP_PASS("host.answer_prepared");
  v1::PeerReply reply;
  *reply.mutable_prepared() = answer;
  Answer(std::move(reply));
}

void ShardHost::KeepPrepared(PreparedChange change) {
  PreparedChange& kept = prepared_[change.answer.version()] = std::move(change);
  if (log_ == nullptr || SHARDSTEP_BUG("acknowledge_before_log")) AnswerPrepared(kept.answer);
  if (log_ == nullptr) return;
  const v1::Prepared answer = kept.answer;
  v1::LogRecord record;
  v1::LoggedPrepare* logged = record.mutable_prepare();
  *logged->mutable_request() = *kept.request;
  *logged->mutable_answer() = answer;
  logged->set_staged_file(kept.staged_file);
  *logged->mutable_settled() = settled_;
  std::vector<at::Tensor> payload;
  if (kept.step != nullptr) {
    const std::vector<ShardGradient>& gradients = kept.step->gradients();
    for (size_t local = 0; local < gradients.size(); ++local) {
      if (!gradients[local].defined()) continue;
      const at::Tensor& tensor = gradients[local].tensor;
      if (!tensor.defined()) {
        return env_.fatal(absl::InternalError("a gradient that is to be logged is still a sum"));
      }
      v1::LoggedPrepare::Gradient* gradient = logged->add_gradients();
      gradient->set_shard(layout_->local[local].shard);
      gradient->set_bytes(tensor.nbytes());
      if (const at::Tensor& rows = kept.step->rows()[local]; rows.defined()) {
        gradient->set_rows(rows.numel());
        gradient->set_bytes(gradient->bytes() + rows.nbytes());
        payload.push_back(rows);
      }
      payload.push_back(tensor);
    }
  }
  log_->Write(std::move(record), std::move(payload), /*sync=*/true, kept.lsn,
              [self = shared_from_this(), this, answer](const absl::Status& status) {
                SHARDSTEP_PASS("host.prepare_logged");
                if (status.ok()) {
                  if (!SHARDSTEP_BUG("acknowledge_before_log")) AnswerPrepared(answer);
                  return;
                }
                const auto found = prepared_.find(answer.version());
                if (found != prepared_.end() &&
                    SameBallot(found->second.answer.ballot(), answer.ballot())) {
                  prepared_.erase(found);
                }
                v1::Prepared refused;
                refused.set_version(answer.version());
                *refused.mutable_ballot() = answer.ballot();
                *refused.mutable_error() = ToRichStatus(status);
                AnswerPrepared(refused);
              });
}

std::vector<OptionMap> ShardHost::OptionsAt(const v1::Prepare& prepare) const {
  std::vector<OptionMap> options;
  for (const ParamGroup& group : optimizer_->groups()) options.push_back(group.options);
  const auto set = [&options](const v1::PrepareStep& step) {
    for (const v1::OptionSetting& setting : step.set_options()) {
      const auto value = OptionValueFromProto(setting.option().value());
      if (!value.ok() || setting.group() >= options.size()) continue;
      options[setting.group()].Set(setting.option().name(), *value);
    }
  };
  for (const auto& [version, change] : prepared_) {
    if (version < prepare.version()) set(change.request->step());
  }
  set(prepare.step());
  return options;
}

void ShardHost::PrepareStep(std::shared_ptr<const v1::Prepare> prepare) {
  PreparedChange change;
  change.request = prepare;
  v1::Prepared& answer = change.answer;
  answer.set_version(prepare->version());
  *answer.mutable_ballot() = prepare->ballot();
  absl::Status status = CheckLive({});
  status.Update(SHARDSTEP_FAILPOINT("host.collect"));
  std::vector<std::vector<std::shared_ptr<const Push>>> pushes;
  std::vector<v1::PushRange> missing;
  for (const v1::Contribution& contribution : prepare->step().contributions()) {
    if (!status.ok()) break;
    auto collected = pushes_.Collect(contribution, &missing);
    status = collected.status();
    if (collected.ok()) pushes.push_back(*std::move(collected));
  }
  for (const v1::PushRange& range : missing) *answer.add_missing() = range;
  if (SHARDSTEP_BUG("reduce_in_order_of_arrival")) std::reverse(pushes.begin(), pushes.end());
  if (status.ok() && missing.empty()) {
    // The log's record needs the bytes.
    const Reduction::Keep keep = log_ == nullptr && optimizer_->TakesSums()
                                     ? Reduction::Keep::kAny
                                     : Reduction::Keep::kTensor;
    auto created =
        PreparedStep::Create(layout_, prepare->step(), pushes, OptionsAt(*prepare), keep);
    status = created.status();
    if (created.ok()) change.step = *std::move(created);
  }
  if (change.step == nullptr) {
    if (!status.ok()) *answer.mutable_error() = ToRichStatus(status);
    AnswerPrepared(answer);
    return Done();
  }
  const auto reduced = std::make_shared<PreparedChange>(std::move(change));
  shardstep::PreparedStep* const step = reduced->step.get();
  RunBlocks(
      step->elements(), step->num_blocks(), [step](size_t block) { step->RunBlock(block); },
      [self = shared_from_this(), this, reduced] {
        const absl::Status finished = reduced->step->Finish(&reduced->answer);
        SHARDSTEP_PASS("host.reduced");
        if (finished.ok()) {
          KeepPrepared(std::move(*reduced));
        } else {
          *reduced->answer.mutable_error() = ToRichStatus(finished);
          AnswerPrepared(reduced->answer);
        }
        Done();
      });
}

void ShardHost::OnCommit(const v1::Commit& commit) {
  SHARDSTEP_PASS("host.commit");
  const bool abort = commit.decision().outcome() == v1::Decision::ABORT;
  if (wal() && !abort && !BallotLess(last_decided_, commit.ballot())) {
    // A coordinator that was not told says it again.
    AnswerApplied(commit, absl::OkStatus());
    return Done();
  }
  if (log_ == nullptr) return Apply(commit);
  const auto found = prepared_.find(commit.version());
  v1::LogRecord record;
  *record.mutable_decision()->mutable_commit() = commit;
  record.mutable_decision()->mutable_commit()->clear_hold();
  // The others of a step know how it was decided; what a change of another kind replaces is
  // removed.
  const bool sync = !abort && found != prepared_.end() && found->second.step == nullptr;
  log_->Write(std::move(record), {}, sync, nullptr,
              [self = shared_from_this(), this, commit](const absl::Status& status) {
                SHARDSTEP_PASS("host.decision_logged");
                if (!status.ok()) return env_.fatal(status);
                Apply(commit);
              });
}

void ShardHost::Apply(const v1::Commit& commit) {
  if (commit.decision().outcome() == v1::Decision::ABORT) return Abort(commit);
  auto found = prepared_.find(commit.version());
  if (found == prepared_.end() || (!SameBallot(found->second.answer.ballot(), commit.ballot()) &&
                                   !SHARDSTEP_BUG("no_ballot_check"))) {
    return Applied(
        commit, absl::DataLossError(absl::StrCat("server ", env_.server_rank,
                                                 " has not prepared version ", commit.version())));
  }
  PreparedChange change = std::move(found->second);
  prepared_.erase(found);
  if (change.step != nullptr) return CommitStep(commit, std::move(change));
  if (change.staged.has_value() || !change.staged_file.empty()) {
    return CommitStaged(commit, std::move(change));
  }
  CommitDelete(commit);
}

void ShardHost::CommitStep(const v1::Commit& commit, PreparedChange change) {
  const std::shared_ptr<const v1::Prepare> request = change.request;
  if (commit.decision().outcome() != v1::Decision::COMMIT) {
    const absl::Status status = SetOptions(request->step());
    return status.ok() ? FinishStep(commit, request->step()) : Applied(commit, status);
  }
  const auto decided = std::make_shared<const v1::Commit>(commit);
  RunRounds(change, decided->decision(),
            [self = shared_from_this(), this, decided, request](const absl::Status& status) {
              if (!status.ok()) return Applied(*decided, status);
              RunStepBlocks([self, this, decided, request] {
                absl::Status finished = optimizer_->FinishStep();
                rounds_.reset();
                finished.Update(SetOptions(request->step()));
                if (!finished.ok()) return Applied(*decided, finished);
                FinishStep(*decided, request->step());
              });
            });
}

absl::Status ShardHost::SetOptions(const v1::PrepareStep& step) {
  absl::Status status;
  for (const v1::OptionSetting& setting : step.set_options()) {
    auto value = OptionValueFromProto(setting.option().value());
    status.Update(value.status());
    if (value.ok()) {
      status.Update(optimizer_->SetOption(setting.group(), setting.option().name(), *value));
    }
  }
  return status;
}

void ShardHost::FinishStep(const v1::Commit& commit, const v1::PrepareStep& request) {
  version_ = commit.version();
  chain_hash_ = ChainHash(chain_hash_, DescriptorOf(request, commit));
  for (const v1::Contribution& contribution : request.contributions()) {
    const v1::PushRange& pushes = contribution.pushes();
    const bool consumed = !request.options().keep_gradients() && pushes.first() <= pushes.last();
    pushes_.DropBelow(pushes.session(), consumed ? pushes.last() + 1 : 0);
    pushes_.DropBelow(pushes.session(), contribution.first_live_push());
  }
  if (wal() && env_.server_rank == kCoordinatorRank) {
    // What is committed is durable.
    const v1::StepReply::Committed committed =
        CommittedReply(version_, lineage_, commit.decision(), version_);
    for (const v1::Contribution& contribution : request.contributions()) {
      calls_.Note(contribution, committed);
    }
  }
  Applied(commit, absl::OkStatus());
}

void ShardHost::CommitDelete(const v1::Commit& commit) {
  if (writing_base_) {
    after_base_ = [this, commit] { CommitDelete(commit); };
    return;
  }
  DropOptimizer();
  lost_by_.reset();
  lost_because_.clear();
  version_ = noted_version_ = lineage_ = 0;
  last_checkpoint_.clear();
  const std::shared_ptr<LogQueue> log = std::exchange(log_, nullptr);
  WriteAheadLog* const files = recovering_      ? replayed_.get()
                               : log == nullptr ? nullptr
                                                : log->log();
  RunBlocking(
      env_.log,
      [this, files]() -> absl::Status {
        SHARDSTEP_RETURN_IF_ERROR(env_.catalog->Remove(name_));
        SHARDSTEP_PASS("host.catalog_removed");
        return files == nullptr ? absl::OkStatus() : files->Destroy();
      },
      [self = shared_from_this(), this, commit, log](const absl::Status& status) {
        Applied(commit, status);
      });
}

void ShardHost::Abort(const v1::Commit& commit) {
  AbandonRounds();
  for (auto change = prepared_.lower_bound(commit.version()); change != prepared_.end();) {
    if (commit.decision().drop_pushes() && change->first == commit.version() &&
        change->second.step != nullptr) {
      for (const auto& contribution : change->second.request->step().contributions()) {
        const v1::PushRange& pushes = contribution.pushes();
        if (pushes.first() <= pushes.last()) pushes_.DropBelow(pushes.session(), pushes.last() + 1);
      }
    }
    if (!change->second.staged_file.empty() && log_ != nullptr) {
      log_->Run([file = change->second.staged_file](
                    WriteAheadLog* log) { return log->RemoveStaged(file); },
                [](const absl::Status&) {});
    }
    change = prepared_.erase(change);
  }
  SHARDSTEP_PASS("host.aborted");
  if (recovering_) return ReplayNext();
  Done();
}

void ShardHost::Applied(const v1::Commit& commit, const absl::Status& error) {
  SHARDSTEP_PASS("host.applied");
  if (error.ok() && wal()) {
    last_decided_ = commit.ballot();
    decided_.push_back(commit);
    decided_.back().clear_hold();
    // Deleted: that there is nothing says it all.
    if (layout_ == nullptr) decided_.clear();
  }
  if (recovering_) return error.ok() ? ReplayNext() : EndRecovery(error);
  // The log is whole: the process comes back by it.
  if (wal() && !error.ok() && !absl::IsDataLoss(error)) return env_.fatal(error);
  if (!error.ok()) LoseShards(env_.server_rank, error.message());
  AnswerApplied(commit, error);
  WriteBaseWhenDue();
  Done();
}

void ShardHost::AnswerApplied(const v1::Commit& commit, const absl::Status& error) {
  v1::PeerReply reply;
  v1::Applied* applied = reply.mutable_applied();
  applied->set_version(commit.version());
  *applied->mutable_ballot() = commit.ballot();
  if (!error.ok()) {
    *applied->mutable_error() = ToRichStatus(error);
  } else if (commit.has_hold() && version_ == commit.version()) {
    applied->set_held(TakeHold(commit.hold()));
  }
  Answer(std::move(reply));
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
  if (SHARDSTEP_BUG("write_to_held_buffer")) {
    for (LocalState::Shard& shard : held->state.shards) {
      shard.value =
          at::from_blob(shard.value.data_ptr(), shard.value.sizes(), shard.value.options());
    }
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
  rounds_.reset();
  optimizer_.reset();
  layout_.reset();
  shard_reservations_.clear();
  pushes_.SetLayout(nullptr);
}

void ShardHost::LoseShards(int server, absl::string_view because) {
  lost_by_ = server;
  lost_because_ = std::string(because);
  DropOptimizer();
}

}  // namespace shardstep
