// A shard host's write-ahead log: how it is replayed at start, and replaced by bases while steps go
// on.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/server/ballot.h"
#include "shardstep/server/device.h"
#include "shardstep/server/faults.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"

namespace shardstep {
namespace {

// How many bytes a logged gradient of this shard has, as far as its rows are the shard's.
uint64_t BytesOf(const v1::LoggedPrepare::Gradient& gradient, const LocalShardInfo& shard) {
  if (!gradient.has_rows()) return shard.bytes;
  const uint64_t rows = std::min<uint64_t>(gradient.rows(), shard.rows);
  return rows * (sizeof(int64_t) + shard.row_elements * ItemSize(shard.dtype));
}

// The tensors that a logged gradient's bytes hold.
void SplitGradient(const v1::LoggedPrepare::Gradient& gradient, const LocalShardInfo& shard,
                   const at::Tensor& bytes, at::Tensor* elements, at::Tensor* rows) {
  const at::ScalarType dtype = ScalarTypeOf(shard.dtype);
  if (!gradient.has_rows()) {
    *elements = bytes.view(dtype);
    return;
  }
  const auto count = static_cast<int64_t>(std::min<uint64_t>(gradient.rows(), shard.rows));
  const int64_t numbers = count * static_cast<int64_t>(sizeof(int64_t));
  *rows = bytes.narrow(0, 0, numbers).view(at::kLong);
  *elements = bytes.narrow(0, numbers, bytes.numel() - numbers)
                  .view(dtype)
                  .view({count, shard.row_elements});
}

}  // namespace

absl::StatusOr<std::unique_ptr<WriteAheadLog>> ShardHost::OpenLog() const {
  WriteAheadLog::Options options;
  options.optimizer = name_;
  options.server_rank = env_.server_rank;
  options.numeric_fingerprint = env_.numeric_fingerprint;
  options.segment_bytes = std::max<int64_t>(env_.log_bytes / 4, 4096);
  return WriteAheadLog::Open(env_.files, env_.catalog->LogDirectory(name_), options);
}

void ShardHost::StartLog(std::unique_ptr<WriteAheadLog> log) {
  LogQueue::Outside outside;
  outside.executor = env_.log;
  // The queue belongs to the host, and its jobs keep the host.
  const std::weak_ptr<ShardHost> weak = weak_from_this();
  outside.run = [weak](std::function<void()> task) {
    if (const auto self = weak.lock()) {
      self->serializer_.Run([self, task = std::move(task)] { task(); });
    }
  };
  outside.fatal = env_.fatal;
  outside.synced = [this](const v1::Ballot& ballot) { synced_ = ballot; };
  outside.idle = [this] { Pump(); };
  log_ = std::make_shared<LogQueue>(std::move(log), std::move(outside));
}

// ---- replay

void ShardHost::Recover() {
  const std::vector<std::string>& logs = env_.catalog->logs();
  if (!wal() || std::find(logs.begin(), logs.end(), name_) == logs.end()) return;
  serializer_.Run([self = shared_from_this(), this] {
    recovering_ = true;
    auto base = std::make_shared<std::optional<Base>>();
    RunBlocking(
        env_.log,
        [this, base]() -> absl::Status {
          SHARDSTEP_ASSIGN_OR_RETURN(replayed_, OpenLog());
          SHARDSTEP_ASSIGN_OR_RETURN(*base, replayed_->ReadBase());
          return absl::OkStatus();
        },
        [self, this, base](const absl::Status& status) {
          if (!status.ok()) return EndRecovery(status);
          // What the catalog says of it is older than what the log says.
          lost_by_.reset();
          version_ = lineage_ = 0;
          if (!base->has_value()) return ReplayNext();
          const v1::BaseHeader header = (*base)->header;
          auto change = FromBase(**std::move(base));
          if (!change.ok()) return EndRecovery(change.status());
          v1::Commit commit;
          commit.set_version(header.version());
          Adopt(commit, &*change);
          chain_hash_ = header.chain_hash();
          last_decided_ = synced_ = header.last_decided();
          decided_.assign(header.decided().begin(), header.decided().end());
          ReplayNext();
        });
  });
}

absl::StatusOr<ShardHost::PreparedChange> ShardHost::FromBase(Base base) const {
  PreparedChange change;
  SHARDSTEP_ASSIGN_OR_RETURN(change.layout,
                             Layout::Make(*base.header.mutable_description(), env_.server_rank));
  const Layout& layout = *change.layout;
  change.lineage = base.header.lineage();
  v1::Prepare request;
  *request.mutable_staged()->mutable_memory() = base.header.memory();
  change.request = std::make_shared<const v1::Prepare>(std::move(request));
  std::vector<ShardValue> shards;
  std::vector<std::vector<TensorState>> states;
  for (size_t i = 0; i < base.state.shards.size(); ++i) {
    LocalState::Shard& shard = base.state.shards[i];
    shards.push_back({shard.parameter, std::move(shard.value), layout.local[i].region,
                      layout.parameters[shard.parameter].sizes});
    states.push_back(std::move(shard.states));
  }
  std::vector<std::string> names;
  for (const ParameterShape& parameter : layout.parameters) names.push_back(parameter.name);
  SHARDSTEP_ASSIGN_OR_RETURN(auto groups,
                             GroupsFromProto(layout.description.groups(), layout.parameters));
  SHARDSTEP_ASSIGN_OR_RETURN(change.staged,
                             LocalOptimizer::Create(layout.description.definition().kind(),
                                                    std::move(groups), names, std::move(shards)));
  SHARDSTEP_RETURN_IF_ERROR(
      change.staged->SetState(std::move(states), std::move(base.state.scalars)));
  return change;
}

void ShardHost::ReplayNext() {
  auto record = std::make_shared<std::optional<WriteAheadLog::Record>>();
  RunBlocking(
      env_.log,
      [this, record]() -> absl::Status {
        SHARDSTEP_ASSIGN_OR_RETURN(*record, replayed_->ReadNext());
        return absl::OkStatus();
      },
      [self = shared_from_this(), this, record](const absl::Status& status) {
        SHARDSTEP_PASS("host.replay");
        if (!status.ok() || !record->has_value()) return EndRecovery(status);
        Replay(**std::move(record));
      });
}

void ShardHost::Replay(WriteAheadLog::Record record) {
  if (record.message.has_decision()) {
    const v1::Commit& commit = record.message.decision().commit();
    const auto found = prepared_.find(commit.version());
    if (SHARDSTEP_BUG("replay_twice") && found != prepared_.end() &&
        found->second.step != nullptr &&
        optimizer_
            ->BeginStep(found->second.step->gradients(), std::nullopt, found->second.step->rows())
            .ok()) {
      for (size_t i = 0; i < optimizer_->num_blocks(); ++i) optimizer_->RunBlock(i);
      static_cast<void>(optimizer_->FinishStep());
    }
    return Apply(commit);
  }
  if (!record.message.has_prepare()) return ReplayNext();
  const v1::LoggedPrepare& logged = record.message.prepare();
  ForgetDecided(logged.settled());
  PreparedChange change;
  change.request = std::make_shared<const v1::Prepare>(logged.request());
  change.answer = logged.answer();
  *change.lsn = record.lsn;
  change.staged_file = logged.staged_file();
  if (logged.request().has_step()) {
    if (layout_ == nullptr) {
      return EndRecovery(absl::DataLossError(
          absl::StrCat("optimizer \"", name_, "\": its log begins with a step")));
    }
    std::vector<ShardGradient> gradients(layout_->local.size());
    std::vector<at::Tensor> rows(layout_->local.size());
    for (int i = 0; i < logged.gradients_size(); ++i) {
      const v1::LoggedPrepare::Gradient& gradient = logged.gradients(i);
      const int32_t local =
          gradient.shard() < layout_->local_of.size() ? layout_->local_of[gradient.shard()] : -1;
      if (local < 0 || BytesOf(gradient, layout_->local[local]) != gradient.bytes()) {
        return EndRecovery(absl::DataLossError(
            absl::StrCat("optimizer \"", name_, "\": record ", record.lsn, " has ",
                         gradient.bytes(), " bytes for shard ", gradient.shard(),
                         " of the plan, which server ", env_.server_rank, " has not like that")));
      }
      SplitGradient(gradient, layout_->local[local], record.payload[i], &gradients[local].tensor,
                    &rows[local]);
    }
    change.step = shardstep::PreparedStep::Restore(layout_, std::move(gradients), std::move(rows));
  }
  prepared_[change.answer.version()] = std::move(change);
  ReplayNext();
}

void ShardHost::EndRecovery(const absl::Status& status) {
  // Else the disk did not answer, or this machine computes other bits: what is there is whole.
  const bool broken = absl::IsDataLoss(status) || absl::IsInvalidArgument(status);
  if (!status.ok() && !broken) return env_.fatal(status);
  recovering_ = false;
  if (status.ok()) {
    // Deleted, and the process died before the last file was gone.
    const bool gone = layout_ == nullptr && prepared_.empty();
    if (replayed_ != nullptr && !gone) StartLog(std::move(replayed_));
    // All that was read is on the disk.
    synced_ = last_decided_;
  } else {
    const std::string because(status.message());
    LoseShards(env_.server_rank, because);
  }
  replayed_.reset();
  // Older than what was decided since: a decision to abort them was not written any more.
  for (auto change = prepared_.begin(); change != prepared_.end();) {
    const bool stale = !BallotLess(last_decided_, change->second.answer.ballot());
    change = stale ? prepared_.erase(change) : std::next(change);
  }
  SHARDSTEP_PASS("host.recovered");
  Pump();
}

// ---- bases

v1::CoordinatorMemory ShardHost::MemoryNow() const {
  v1::CoordinatorMemory memory = memory_;
  if (!SHARDSTEP_BUG("forget_calls_in_base")) calls_.AddTo(&memory);
  return memory;
}

void ShardHost::SetMemory(const v1::CoordinatorMemory& memory) {
  calls_ = CommittedCalls::Of(memory);
  memory_ = memory;
  memory_.clear_trainers();
  memory_.clear_replies();
}

v1::BaseHeader ShardHost::BaseHeaderNow() const {
  v1::BaseHeader header;
  *header.mutable_description() = DescriptionNow();
  header.set_lineage(lineage_);
  header.set_version(version_);
  for (const v1::Commit& commit : decided_) *header.add_decided() = commit;
  *header.mutable_last_decided() = last_decided_;
  header.set_numeric_fingerprint(env_.numeric_fingerprint);
  if (env_.server_rank == kCoordinatorRank) *header.mutable_memory() = MemoryNow();
  header.set_chain_hash(chain_hash_);
  return header;
}

v1::BaseHeader ShardHost::BaseHeaderOf(const PreparedChange& change) const {
  v1::BaseHeader header;
  *header.mutable_description() = change.layout->description;
  *header.mutable_description()->mutable_groups() =
      GroupsToProto(change.staged->groups(), change.layout->parameters);
  header.set_lineage(change.lineage);
  header.set_version(change.request->version());
  header.set_numeric_fingerprint(env_.numeric_fingerprint);
  *header.mutable_memory() = change.request->staged().memory();
  return header;
}

void ShardHost::WriteBaseWhenDue() {
  if (log_ == nullptr || layout_ == nullptr || writing_base_) return;
  const int64_t base_bytes = BytesOf(optimizer_->state(), v1::EVERYTHING);
  if (log_->bytes_behind_base() < std::max(env_.log_bytes, base_bytes)) return;
  // Steps go on meanwhile: what they write over is kept for the base, as for any other reader.
  auto held = std::make_shared<HeldVersion>();
  if (!held->reservation.Grow(env_.snapshot_memory, base_bytes)) return;
  held->state = optimizer_->state();
  auto header = std::make_shared<v1::BaseHeader>(BaseHeaderNow());
  std::vector<std::shared_ptr<uint64_t>> pending;
  for (const auto& [version, change] : prepared_) pending.push_back(change.lsn);
  writing_base_ = true;
  const std::shared_ptr<LogQueue> log = log_;
  auto self = shared_from_this();
  const auto end = [self, this](const absl::Status&) {
    // On a full disk the log stays as it is, and the next version tries again.
    writing_base_ = false;
    if (after_base_) std::exchange(after_base_, nullptr)();
  };
  const auto truncate = [log, header, end](const absl::Status& written) {
    SHARDSTEP_PASS("host.base_written");
    if (!written.ok()) return end(written);
    log->Run([header](WriteAheadLog* files) { return files->Truncate(*header); }, end);
  };
  // What was handed to the log before this is in the base, or pending.
  log->Run(
      [header](WriteAheadLog* files) {
        header->set_lsn(files->last_lsn());
        return absl::OkStatus();
      },
      [self, this, log, header, held, pending, truncate](const absl::Status&) {
        for (const auto& lsn : pending) {
          if (*lsn != 0) header->add_pending_lsns(*lsn);
        }
        RunBlocking(
            env_.disk, [log, header, held] { return log->log()->WriteBase(*header, held->state); },
            truncate);
      });
}

}  // namespace shardstep
