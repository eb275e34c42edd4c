// Snapshots: holds on one version of all shards, for readers and for checkpoints.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/server/coordinator.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

constexpr size_t kMaxWaiters = 4096;
constexpr int kRetryDelayMs = 50;
// When the next automatic checkpoint is tried after one that failed.
constexpr absl::Duration kRetryAfterFailure = absl::Seconds(30);
// Where no interval is given: writing takes at most this share of the time.
constexpr double kMostOverhead = 0.035;
constexpr absl::Duration kLeastInterval = absl::Seconds(1);

}  // namespace

void Coordinator::OpenSnapshot(v1::OpenSnapshotRequest request, Caller caller,
                               Reply<v1::OpenSnapshotReply> reply) {
  Run([this, request = std::move(request), caller = std::move(caller), reply = std::move(reply)] {
    if (draining_) return reply(absl::UnavailableError("the server is shutting down"));
    v1::CallHeader believed = request.header();
    // A reader takes any plan: the snapshot says which one it is of.
    believed.clear_plan_id();
    const absl::Status live = CheckLive(believed);
    if (!live.ok()) return reply(live);
    if (request.kind() != v1::PARAMETERS && request.kind() != v1::EVERYTHING) {
      return reply(absl::InvalidArgumentError(absl::StrCat("snapshot kind ",
                                                           static_cast<int>(request.kind()),
                                                           ", expected PARAMETERS or EVERYTHING")));
    }
    if (snapshot_waiters_.size() >= kMaxWaiters) {
      return reply(absl::ResourceExhaustedError("too many readers wait for snapshots"));
    }
    snapshot_waiters_.push_back(
        {request.header().lineage(), request.at_least_version(), request.kind(), caller, reply});
    ServeSnapshotWaiters();
  });
}

void Coordinator::AnswerPendingHolds(absl::Time now) {
  v1::OpenSnapshotReply not_yet;
  not_yet.set_current_version(pipeline_.committed());
  for (auto& [id, pending] : pending_holds_) {
    std::vector<SnapshotWaiter> still;
    for (SnapshotWaiter& reader : std::exchange(pending.readers, {})) {
      if (now >= reader.caller.answer_by) {
        reader.reply(not_yet);
      } else {
        still.push_back(std::move(reader));
      }
    }
    pending.readers = std::move(still);
  }
}

void Coordinator::ServeSnapshotWaiters() {
  if (snapshot_waiters_.empty() || state_ != State::kLive) return;
  std::vector<SnapshotWaiter> still;
  std::map<v1::SnapshotKind, std::vector<SnapshotWaiter>> ready;
  for (SnapshotWaiter& waiter : std::exchange(snapshot_waiters_, {})) {
    if (waiter.caller.gone()) {
      waiter.reply(absl::CancelledError("the reader went away"));
    } else if (waiter.at_least <= pipeline_.committed()) {
      ready[waiter.kind].push_back(std::move(waiter));
    } else if (env_.clock->Now() >= waiter.caller.answer_by) {
      v1::OpenSnapshotReply not_yet;
      not_yet.set_current_version(pipeline_.committed());
      waiter.reply(not_yet);
    } else {
      still.push_back(std::move(waiter));
    }
  }
  for (SnapshotWaiter& waiter : still) snapshot_waiters_.push_back(std::move(waiter));
  for (auto& [kind, readers] : ready) TakeHold(std::move(readers));
}

void Coordinator::TakeHold(std::vector<SnapshotWaiter> readers) {
  // A hold that is on its way to the servers and is new enough serves these readers too.
  for (auto& [id, pending] : pending_holds_) {
    if (pending.kind != readers[0].kind || pending.version < pipeline_.committed()) continue;
    for (SnapshotWaiter& reader : readers) pending.readers.push_back(std::move(reader));
    return;
  }
  const uint64_t id = snapshots_.NextId();
  PendingHold& pending = pending_holds_[id];
  pending.version = pipeline_.decided();
  pending.kind = readers[0].kind;
  pending.readers = std::move(readers);
  for (int server = 0; server < env_.servers; ++server) pending.unanswered.insert(server);
  v1::PeerMessage message;
  message.mutable_hold()->set_snapshot(id);
  message.mutable_hold()->set_kind(pending.kind);
  Broadcast(message);
}

void Coordinator::OnHoldTaken(int server, const v1::HoldTaken& taken) {
  const auto found = pending_holds_.find(taken.snapshot());
  if (found == pending_holds_.end()) return;
  PendingHold& pending = found->second;
  pending.held = pending.held && taken.held() && taken.version() == pending.version;
  pending.unanswered.erase(server);
  if (!pending.unanswered.empty()) return;
  const uint64_t id = found->first;
  const PendingHold taken_hold = std::move(pending);
  pending_holds_.erase(found);
  if (!taken_hold.held) {
    Release({id});
    v1::ErrorDetail detail;
    detail.set_optimizer(name_);
    detail.set_retry_delay_ms(kRetryDelayMs);
    detail.set_server_rank(-1);
    const absl::Status full =
        MakeError(absl::StatusCode::kResourceExhausted,
                  absl::StrCat("optimizer \"", name_, "\": no memory for another held version; ",
                               snapshots_.size(), " are held (--snapshot-memory)"),
                  detail);
    for (const SnapshotWaiter& reader : taken_hold.readers) reader.reply(full);
    return;
  }
  // All that waited for it were told to come again.
  if (taken_hold.readers.empty()) return Release({id});
  snapshots_.Opened(id, taken_hold.version, taken_hold.kind,
                    static_cast<int>(taken_hold.readers.size()), SnapshotFactsNow(taken_hold.kind));
  v1::OpenSnapshotReply opened;
  *opened.mutable_snapshot() = SnapshotMessage(id, taken_hold.version, taken_hold.kind);
  opened.set_current_version(pipeline_.committed());
  for (const SnapshotWaiter& reader : taken_hold.readers) reader.reply(opened);
}

v1::Snapshot Coordinator::SnapshotMessage(uint64_t id, uint64_t version,
                                          v1::SnapshotKind kind) const {
  v1::Snapshot snapshot;
  snapshot.set_snapshot(id);
  snapshot.set_version(version);
  snapshot.set_lineage(lineage_);
  snapshot.set_plan_id(layout_->plan.plan_id);
  snapshot.set_lease_ms(absl::ToInt64Milliseconds(snapshots_.lease()));
  snapshot.set_kind(kind);
  if (kind == v1::EVERYTHING) {
    for (const ParamGroup& group : *groups_) {
      *snapshot.add_groups()->mutable_options() = OptionMapToProto(group.options);
    }
  }
  return snapshot;
}

void Coordinator::RenewSnapshot(v1::RenewSnapshotRequest request,
                                Reply<v1::RenewSnapshotReply> reply) {
  Run([this, request = std::move(request), reply = std::move(reply)] {
    if (state_ == State::kRecovering) return reply(Recovering());
    if (state_ == State::kLost) return reply(LostStatus());
    if (!snapshots_.Renew(request.snapshot())) return reply(SnapshotGone(request.snapshot()));
    reply(v1::RenewSnapshotReply());
  });
}

absl::Status Coordinator::SnapshotGone(uint64_t snapshot) const {
  return OptimizerError(Facts(), absl::StatusCode::kAborted, v1::SNAPSHOT_GONE,
                        absl::StrCat("optimizer \"", name_, "\": snapshot ", snapshot,
                                     " was closed, or its lease ended"));
}

void Coordinator::CloseSnapshot(v1::CloseSnapshotRequest request,
                                Reply<v1::CloseSnapshotReply> reply) {
  Run([this, request = std::move(request), reply = std::move(reply)] {
    CloseSnapshotNumber(request.snapshot());
    reply(v1::CloseSnapshotReply());
  });
}

void Coordinator::CloseSnapshotNumber(uint64_t snapshot) {
  if (snapshots_.Close(snapshot)) Release({snapshot});
}

void Coordinator::Release(std::vector<uint64_t> snapshots) {
  if (snapshots.empty()) return;
  v1::PeerMessage message;
  for (const uint64_t snapshot : snapshots) message.mutable_release()->add_snapshots(snapshot);
  Broadcast(message);
}

void Coordinator::FailSnapshotWaiters(const absl::Status& status) {
  for (SnapshotWaiter& waiter : std::exchange(snapshot_waiters_, {})) waiter.reply(status);
  for (auto& [id, pending] : std::exchange(pending_holds_, {})) {
    for (const SnapshotWaiter& reader : pending.readers) reader.reply(status);
  }
}

// ---- checkpoints

void Coordinator::Checkpoint(v1::CheckpointRequest request, Caller caller,
                             Reply<v1::CheckpointReply> reply) {
  Run([this, request = std::move(request), caller = std::move(caller), reply = std::move(reply)] {
    if (draining_) return reply(absl::UnavailableError("the server is shutting down"));
    const absl::Status live = CheckLive(request.header());
    if (!live.ok()) return reply(live);
    checkpointer_.Ask(request, caller, reply);
  });
}

v1::CheckpointFacts Coordinator::CheckpointFactsNow() const {
  v1::CheckpointFacts facts;
  facts.set_version(pipeline_.committed());
  facts.set_lineage(lineage_);
  facts.set_lineage_ordinal(lineage_ordinal_);
  facts.set_parent_lineage(parent_lineage_);
  facts.set_numeric_fingerprint(env_.numeric_fingerprint);
  *facts.mutable_description() = DescriptionOf(SnapshotFactsNow(v1::EVERYTHING));
  facts.set_last_session(sessions_.last_number());
  return facts;
}

void Coordinator::OnCheckpointEnd(const absl::StatusOr<v1::CheckpointFacts>& ended) {
  const absl::Time now = env_.clock->Now();
  const absl::Duration interval = env_.checkpoint_interval.value_or(
      std::max(kLeastInterval, (now - checkpoint_began_) / kMostOverhead));
  next_checkpoint_ = now + (ended.ok() ? interval : std::min(interval, kRetryAfterFailure));
  if (!ended.ok()) {
    // Else it is tried again at the next tick, while its callers wait.
    if (!absl::IsUnavailable(ended.status())) AnswerUncovered(now, ended.status());
    return;
  }
  NoteCheckpoint(ended->checkpoint_id(), ended->version());
  if (ended->lineage() == lineage_) {
    lineage_ordinal_ = ended->lineage_ordinal();
    durable_ = std::max(durable_.value_or(0), ended->version());
  }
  AnswerUncovered(now, absl::OkStatus());
}

void Coordinator::NoteCheckpoint(const std::string& checkpoint_id, uint64_t version) {
  v1::PeerMessage message;
  message.mutable_note_checkpoint()->set_checkpoint_id(checkpoint_id);
  message.mutable_note_checkpoint()->set_version(version);
  Broadcast(message);
  last_checkpoint_ = checkpoint_id;
}

uint64_t Coordinator::durable_version() const {
  switch (env_.durability) {
    case Durability::kNone:
      return 0;
    case Durability::kCheckpoint:
      return durable_.value_or(0);
    case Durability::kWal:
      // Every server has it in its log, since it is committed.
      return pipeline_.committed();
  }
  return 0;
}

void Coordinator::CheckpointWhenDue(absl::Time now) {
  if (state_ != State::kLive || draining_ || env_.durability != Durability::kCheckpoint) return;
  if (now < next_checkpoint_ || durable_ == pipeline_.committed()) return;
  checkpointer_.AskAutomatic();
}

}  // namespace shardstep
