// A shard host's end of the coordinator's stream: how one begins, which messages count, how answers
// leave, and what is fenced.

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/server/ballot.h"
#include "shardstep/server/faults.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {

void ShardHost::Connect(const v1::PeerHello& hello, Send send,
                        std::function<void(absl::Status)> done) {
  serializer_.Run(
      [self = shared_from_this(), hello, send = std::move(send), done = std::move(done)]() mutable {
        self->connecting_.push_back({hello, std::move(send), std::move(done)});
        self->Pump();
      });
}

void ShardHost::PumpConnecting() {
  const Connecting connecting = std::move(connecting_.front());
  connecting_.erase(connecting_.begin());
  const uint64_t incarnation = connecting.hello.coordinator_incarnation();
  if (incarnation < coordinator_incarnation_ && !SHARDSTEP_BUG("no_ballot_check")) {
    return connecting.done(
        MakeError(absl::StatusCode::kFailedPrecondition,
                  absl::StrCat("coordinator incarnation ", incarnation, " was replaced by ",
                               coordinator_incarnation_,
                               ": another server has taken its place. If the data directory of "
                               "server ",
                               kCoordinatorRank, " was replaced by an empty one, write ",
                               coordinator_incarnation_ >> 16, " into its file \"incarnation\""),
                  v1::FENCED));
  }
  if (incarnation == coordinator_incarnation_) return FinishConnecting(connecting);
  // The coordinator's memory is new. Only with a log does the optimizer outlive it.
  if (layout_ != nullptr && !wal()) LoseShards(kCoordinatorRank);
  inbox_ = Inbox();
  outbox_ = Outbox<v1::PeerReply>();
  queue_.clear();
  staging_.reset();
  if (!wal()) prepared_.clear();
  holds_.clear();
  send_ = nullptr;
  coordinator_incarnation_ = incarnation;
  busy_ = true;
  RunBlocking(
      env_.log, [this, fences = FencesNow()] { return WriteFences(fences); },
      [self = shared_from_this(), this, connecting](const absl::Status& status) {
        SHARDSTEP_PASS("host.promised");
        if (status.ok()) {
          FinishConnecting(connecting);
        } else {
          connecting.done(status);
        }
        Done();
      });
}

void ShardHost::FinishConnecting(const Connecting& connecting) {
  outbox_.Received(connecting.hello.received());
  send_ = connecting.send;
  connecting.done(absl::OkStatus());
  v1::PeerReply first;
  Welcome(first.mutable_welcome());
  send_({std::move(first)});
  outbox_.Rewind();
  Flush();
}

void ShardHost::Welcome(v1::PeerWelcome* welcome) const {
  welcome->set_incarnation(env_.incarnation);
  welcome->set_received(inbox_.last());
  welcome->set_shards_lost(lost_by_.has_value());
  welcome->set_lost_because(lost_because_);
  welcome->set_noted_version(noted_version_);
  welcome->set_last_checkpoint(last_checkpoint_);
  if (layout_ != nullptr) {
    welcome->set_committed_version(version_);
    welcome->set_lineage(lineage_);
    welcome->set_chain_hash(chain_hash_);
  } else if (lost_by_.has_value()) {
    welcome->set_lineage(lineage_);
  }
  for (const auto& [version, change] : prepared_) {
    v1::PeerWelcome::InDoubt* in_doubt = welcome->add_in_doubt();
    *in_doubt->mutable_request() = *change.request;
    *in_doubt->mutable_answer() = change.answer;
  }
  for (const v1::Commit& commit : decided_) *welcome->add_decided() = commit;
  *welcome->mutable_last_decided() = last_decided_;
  if (env_.server_rank != kCoordinatorRank) return;
  for (const auto& [rank, session] : announced_) *welcome->add_sessions() = session;
  if (!wal() || layout_ == nullptr) return;
  *welcome->mutable_memory() = MemoryNow();
  *welcome->mutable_description() = DescriptionNow();
}

void ShardHost::Receive(uint64_t coordinator_incarnation, std::vector<v1::PeerMessage> messages) {
  serializer_.Run([self = shared_from_this(), this, coordinator_incarnation,
                   messages = std::move(messages)]() mutable {
    if (coordinator_incarnation != coordinator_incarnation_ && !SHARDSTEP_BUG("no_ballot_check")) {
      return;
    }
    for (v1::PeerMessage& message : messages) {
      outbox_.Received(message.received());
      ForgetDecided(message.settled());
      if (inbox_.Accept(message.number())) queue_.push_back(std::move(message));
    }
    Pump();
  });
}

void ShardHost::ForgetDecided(const v1::Ballot& settled) {
  if (BallotLess(settled_, settled)) settled_ = settled;
  while (!decided_.empty() && !BallotLess(settled_, decided_.front().ballot())) {
    decided_.pop_front();
  }
}

void ShardHost::Answer(v1::PeerReply reply) {
  reply.set_received(inbox_.last());
  if (wal()) *reply.mutable_synced() = synced_;
  outbox_.Add(std::move(reply));
  Flush();
}

void ShardHost::Flush() {
  if (std::exchange(flushing_, true)) return;
  serializer_.Run([self = shared_from_this(), this] {
    flushing_ = false;
    if (!send_) return;
    std::vector<v1::PeerReply> unsent = outbox_.TakeUnsent();
    if (unsent.empty()) return;
    const bool prepared = HasBody(unsent, v1::PeerReply::kPrepared);
    const bool reduced = HasBody(unsent, v1::PeerReply::kReduced);
    const bool applied = HasBody(unsent, v1::PeerReply::kApplied);
    send_(std::move(unsent));
    if (prepared) SHARDSTEP_PASS("host.prepared_answered");
    if (reduced) SHARDSTEP_PASS("host.reduced_answered");
    if (applied) SHARDSTEP_PASS("host.applied_answered");
  });
}

v1::FenceEntry ShardHost::FencesNow() const {
  v1::FenceEntry fences;
  // Nobody writes them, and they hold what all sessions declared.
  if (env_.durability == Durability::kNone) return fences;
  fences.set_optimizer(name_);
  fences.set_coordinator_incarnation(coordinator_incarnation_);
  for (const auto& [rank, session] : announced_) *fences.add_sessions() = session;
  return fences;
}

absl::Status ShardHost::WriteFences(const v1::FenceEntry& fences) const {
  if (env_.durability == Durability::kNone) return absl::OkStatus();
  return env_.catalog->WriteFences(name_, fences);
}

void ShardHost::OnSessions(const v1::AnnounceSessions& sessions) {
  for (const v1::AnnounceSessions::Session& session : sessions.sessions()) {
    pushes_.Announce(session);
    v1::AnnounceSessions::Session& known = announced_[session.trainer_rank()];
    if (known.session() < session.session()) calls_.Forget(known.session(), UINT64_MAX);
    if (known.session() <= session.session()) known = session;
    unanswered_sessions_.push_back(session.session());
  }
  KeepSessions([self = shared_from_this()] { self->Done(); });
}

void ShardHost::KeepSessions(std::function<void()> done) {
  RunBlocking(
      env_.log, [this, fences = FencesNow()] { return WriteFences(fences); },
      [self = shared_from_this(), this, done = std::move(done)](const absl::Status& status) {
        SHARDSTEP_PASS("host.sessions_written");
        // On a full disk: NoteVersion tries again, and who opens the session waits.
        if (status.ok()) {
          v1::PeerReply reply;
          reply.mutable_sessions_known();
          for (const uint64_t session : std::exchange(unanswered_sessions_, {})) {
            reply.mutable_sessions_known()->add_sessions(session);
          }
          Answer(std::move(reply));
        }
        done();
      });
}

}  // namespace shardstep
