// What a shard host does with changes of every kind: prepare, decide, answer; deletes, aborts,
// holds.

#include <utility>
#include <vector>

#include "ATen/ops/from_blob.h"
#include "absl/strings/str_cat.h"
#include "shardstep/server/ballot.h"
#include "shardstep/server/faults.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {

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
