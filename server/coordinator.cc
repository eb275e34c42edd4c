// Peers and leases of a coordinator.

#include "shardstep/server/coordinator.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "shardstep/optim/options/coupling.h"
#include "shardstep/server/faults.h"
#include "shardstep/server/step_sums.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
Coordinator::Coordinator(std::string name, const CoordinatorEnvironment& environment,
                         const v1::CatalogEntry* found)
    : name_(std::move(name)),
      env_(environment),
      last_needed_(environment.clock->Now()),
      // Numbers of this start are above those of all earlier ones.
      last_lineage_(environment.start << 16),
      last_staging_(environment.start << 16),
      links_(environment.servers),
      sessions_(environment.clock, environment.lease, environment.start << 24),
      pipeline_(
          environment.servers, environment.start,
          {[this](int server, v1::PeerMessage message) { SendTo(server, std::move(message)); },
           [this](const v1::Prepare& request, const std::vector<v1::Prepared>& answers) {
             return Decide(request, answers, Described(), Facts());
           },
           [this] { return CouplingOf(definition_.kind).reduce_rounds; },
           [this](const std::vector<v1::Reduced>& sums) { return AddUp(*layout_, sums); },
           [this](int server, const absl::Status& why) {
             Lose(server, pipeline_.committed(), std::string(why.message()));
           },
           environment.durability == Durability::kWal}),
      snapshots_(environment.clock, environment.lease, environment.start << 24),
      checkpointer_(
          environment.servers,
          {[this](int server, v1::PeerMessage message) { SendTo(server, std::move(message)); },
           [this](Reply<v1::OpenSnapshotReply> reply) {
             checkpoint_began_ = env_.clock->Now();
             snapshot_waiters_.push_back({0, 0, v1::EVERYTHING,
                                          Caller{absl::InfiniteFuture(), [] { return false; }},
                                          std::move(reply)});
             ServeSnapshotWaiters();
           },
           [this](uint64_t snapshot) { snapshots_.Renew(snapshot); },
           [this](uint64_t snapshot) { CloseSnapshotNumber(snapshot); },
           [this] { return CheckpointFactsNow(); },
           [this](const absl::StatusOr<v1::CheckpointFacts>& ended) { OnCheckpointEnd(ended); }}) {
  if (wal()) state_ = State::kRecovering;
  if (found == nullptr) return;
  if (!wal()) state_ = State::kLost;
  lost_by_ = 0;
  lost_version_ = found->version();
  lineage_ = found->lineage();
  last_checkpoint_ = found->last_checkpoint();
}

void Coordinator::Run(std::function<void()> task) {
  serializer_.Run([self = shared_from_this(), task = std::move(task)] {
    self->idle_ = false;  // until Tick, a task like others, finds that it is so again
    task();
  });
}

OptimizerFacts Coordinator::Facts() const {
  return {name_,
          state_ == State::kLost ? lost_version_ : pipeline_.committed(),
          lineage_,
          env_.incarnation,
          layout_ == nullptr ? std::string() : layout_->plan.plan_id,
          last_checkpoint_};
}

absl::Status Coordinator::CheckLive(const v1::CallHeader& header) {
  if (state_ == State::kRecovering) return Recovering();
  if (state_ == State::kLost) return LostStatus();
  if (state_ != State::kLive) return NoSuchOptimizer(name_, {});
  absl::Status status = CheckBeliefs(header, Facts());
  if (ReasonOf(status) != v1::ROLLED_BACK) return status;
  // It never was the lineage of this optimizer.
  if (last_rewind_.cause == v1::RollBack::CAUSE_UNSPECIFIED) return status;
  const Session* session = sessions_.Find(header.session());
  return RolledBack(session == nullptr ? -1 : session->trainer_rank);
}

absl::Status Coordinator::RolledBack(int trainer_rank) {
  v1::ErrorDetail detail;
  detail.set_reason(v1::ROLLED_BACK);
  detail.set_optimizer(name_);
  detail.set_version(pipeline_.committed());
  detail.set_lineage(lineage_);
  detail.set_incarnation(env_.incarnation);
  detail.set_plan_id(layout_->plan.plan_id);
  detail.set_server_rank(-1);
  v1::RollBack* roll_back = detail.mutable_roll_back();
  roll_back->set_cause(last_rewind_.cause);
  roll_back->set_lineage(lineage_);
  roll_back->set_version(pipeline_.committed());
  roll_back->set_plan_id(layout_->plan.plan_id);
  if (trainer_rank >= 0) {
    roll_back->set_trainer_state(calls_.last(trainer_rank).trainer_state);
  }
  const char* const how = last_rewind_.cause == v1::RollBack::LOAD ? "loaded"
                          : last_rewind_.cause == v1::RollBack::RESTORE
                              ? "restored"
                              : "set back after a failure";
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("optimizer \"", name_, "\" was ", how, ": it is at version ",
                   pipeline_.committed(), " of lineage ", lineage_, "; go on from there"),
      detail);
}

absl::StatusOr<Session*> Coordinator::FindSession(const v1::CallHeader& header) {
  Session* session = sessions_.Find(header.session());
  if (session == nullptr && state_ == State::kRecovering) return Recovering();
  if (session == nullptr) {
    return Fenced(Facts(), header.session(),
                  "was replaced by a newer session of its trainer rank, or closed");
  }
  sessions_.Renew(session);
  return session;
}

// ---- peers

void Coordinator::ConnectPeer(int server, Send send) {
  Run([this, server, send = std::move(send)] {
    Link& link = links_[server];
    link.send = send;
    link.welcomed = false;
    v1::PeerMessage message;
    v1::PeerHello* hello = message.mutable_hello();
    hello->set_optimizer(name_);
    hello->set_coordinator_incarnation(env_.start);
    hello->set_received(link.inbox.last());
    hello->set_server_rank(server);
    link.send({message});
  });
}

void Coordinator::DisconnectPeer(int server) {
  Run([this, server] {
    links_[server].send = nullptr;
    links_[server].welcomed = false;
  });
}

void Coordinator::SendTo(int server, v1::PeerMessage message) {
  Link& link = links_[server];
  message.set_received(link.inbox.last());
  if (wal()) *message.mutable_settled() = pipeline_.settled();
  link.outbox.Add(std::move(message));
  Flush();
}

void Coordinator::Flush() {
  // None while it is destroyed, which fails the calls that wait.
  const std::shared_ptr<Coordinator> self = weak_from_this().lock();
  if (self == nullptr || std::exchange(flushing_, true)) return;
  serializer_.Run([self, this] {
    flushing_ = false;
    // The own server last: it acts at once, on this thread.
    for (int server = 1; server < env_.servers; ++server) SendUnsent(&links_[server]);
    SendUnsent(&links_[kCoordinatorRank]);
  });
}

void Coordinator::SendUnsent(Link* link) {
  if (!link->welcomed || !link->send) return;
  std::vector<v1::PeerMessage> unsent = link->outbox.TakeUnsent();
  if (unsent.empty()) return;
  const bool prepare = HasBody(unsent, v1::PeerMessage::kPrepare);
  const bool reduce = HasBody(unsent, v1::PeerMessage::kReduce);
  const bool commit = HasBody(unsent, v1::PeerMessage::kCommit);
  const bool hold = HasBody(unsent, v1::PeerMessage::kHold);
  link->send(std::move(unsent));
  if (prepare) SHARDSTEP_PASS("pipeline.prepare_sent");
  if (reduce) SHARDSTEP_PASS("pipeline.reduce_sent");
  if (commit) SHARDSTEP_PASS("pipeline.commit_sent");
  if (hold) SHARDSTEP_PASS("coordinator.hold_sent");
}

void Coordinator::Broadcast(const v1::PeerMessage& message) {
  for (int server = 0; server < env_.servers; ++server) SendTo(server, message);
}

void Coordinator::OnPeerReplies(int server, std::vector<v1::PeerReply> replies) {
  Run([this, server, replies = std::move(replies)] {
    for (const v1::PeerReply& reply : replies) OnPeerReply(server, reply);
  });
}

void Coordinator::OnPeerReply(int server, const v1::PeerReply& reply) {
  if (reply.has_welcome()) return OnWelcome(server, reply.welcome());
  Link& link = links_[server];
  link.outbox.Received(reply.received());
  if (!link.inbox.Accept(reply.number())) return;
  if (reply.has_synced()) pipeline_.OnSynced(server, reply.synced());
  switch (reply.body_case()) {
    case v1::PeerReply::kSessionsKnown:
      return OnSessionsKnown(server, reply.sessions_known());
    case v1::PeerReply::kStagingState:
      return OnStagingState(server, reply.staging_state());
    case v1::PeerReply::kPrepared:
      pipeline_.OnPrepared(server, reply.prepared());
      return PumpAlone();
    case v1::PeerReply::kReduced:
      pipeline_.OnReduced(server, reply.reduced());
      return PumpAlone();
    case v1::PeerReply::kApplied:
      pipeline_.OnApplied(server, reply.applied());
      ServeSnapshotWaiters();
      return PumpAlone();
    case v1::PeerReply::kHoldTaken:
      return OnHoldTaken(server, reply.hold_taken());
    case v1::PeerReply::kManifestRead:
      return OnManifestRead(reply.manifest_read());
    case v1::PeerReply::kCheckpointBegun:
      return checkpointer_.OnBegun(reply.checkpoint_begun());
    case v1::PeerReply::kCheckpointWritten:
      return checkpointer_.OnWritten(server, reply.checkpoint_written());
    case v1::PeerReply::kCheckpointFinished:
      return checkpointer_.OnFinished(reply.checkpoint_finished());
    case v1::PeerReply::kStanding:
      link.welcome = reply.standing();
      return RecoverWhenAllAreThere();
    case v1::PeerReply::kFileProgress:
      return OnFileProgress(server, reply.file_progress());
    case v1::PeerReply::kWelcome:
    case v1::PeerReply::kPage:
    case v1::PeerReply::BODY_NOT_SET:
      return;
  }
}

void Coordinator::OnSuperseded(int server, const absl::Status& status) {
  env_.fatal(absl::Status(status.code(), absl::StrCat("server ", server, ": ", status.message())));
}

void Coordinator::OnWelcome(int server, const v1::PeerWelcome& welcome) {
  Link& link = links_[server];
  const bool restarted = link.incarnation != 0 && link.incarnation != welcome.incarnation();
  const bool first = link.incarnation == 0;
  link.incarnation = welcome.incarnation();
  if (first && server == kCoordinatorRank) {
    sessions_.Recover({welcome.sessions().begin(), welcome.sessions().end()});
    // Of some the coordinator before may have told no other server.
    for (const auto& [rank, known] : sessions_.live()) {
      Session* const session = sessions_.OfRank(rank);
      if (session != nullptr) AwaitAll(session);
    }
  }
  if (restarted)
    OnRestart(server, absl::UnavailableError(absl::StrCat("server ", server, " restarted")));
  link.outbox.Received(welcome.received());
  link.welcomed = true;
  link.outbox.Rewind();
  Flush();
  if (restarted || (first && server == kCoordinatorRank)) AnnounceAll();
  if (state_ == State::kRecovering && pipeline_.empty()) {
    link.welcome = welcome;
    return RecoverWhenAllAreThere();
  }
  if (restarted && wal()) {
    if (welcome.shards_lost()) {
      Lose(server, pipeline_.committed(), welcome.lost_because());
    } else {
      pipeline_.Resume(server, welcome);
    }
  } else if (restarted) {
    // Its shards went with its memory.
    if (state_ == State::kLive) Lose(server, pipeline_.committed());
    // Changes that were on their way to it (a delete) are to be proposed again.
    pipeline_.FailAll(absl::UnavailableError(absl::StrCat("server ", server, " restarted")));
  }
  if (last_checkpoint_.empty() && welcome.shards_lost()) {
    last_checkpoint_ = welcome.last_checkpoint();
  }
  if ((first || restarted) && welcome.shards_lost() && state_ == State::kAbsent) {
    lineage_ = welcome.lineage();
    Lose(server, welcome.noted_version());
  }
  ReturnWhenAllAreThere();
  AnswerOpenSessions();
  PumpAlone();
}

void Coordinator::OnRestart(int server, const absl::Status& again) {
  // The conversation with it begins anew.
  Link& link = links_[server];
  link.inbox = Inbox();
  link.outbox = Outbox<v1::PeerMessage>();
  // With a log, what is prepared already outlives the restart.
  const auto& changes = pipeline_.changes();
  const bool prepared =
      wal() && std::any_of(changes.begin(), changes.end(),
                           [](const auto& change) { return change->request.has_staged(); });
  if (staged_ != nullptr && !prepared) DropStaged(again);
  next_return_ = absl::InfinitePast();
  checkpointer_.FailAll(again);
  // Its holds are gone: nobody can read those versions any more.
  std::vector<uint64_t> gone = snapshots_.Clear();
  for (const auto& [id, pending] : pending_holds_) {
    gone.push_back(id);
    for (const SnapshotWaiter& reader : pending.readers) reader.reply(again);
  }
  pending_holds_.clear();
  Release(gone);
}

void Coordinator::AnnounceAll() {
  std::vector<const Session*> all;
  for (const auto& [rank, session] : sessions_.live()) all.push_back(&session);
  if (!all.empty()) Announce(all);
}

void Coordinator::Lose(int server, uint64_t version, std::string because) {
  state_ = State::kLost;
  lost_by_ = server;
  lost_version_ = version;
  lost_because_ = std::move(because);
  no_return_ = failed_return_ = false;
  const absl::Status lost = LostStatus();
  pipeline_.FailAll(lost);
  FailWaiting(lost);
  snapshots_.Clear();
  FailSnapshotWaiters(lost);
  layout_ = nullptr;
  if (staged_ != nullptr) DropStaged(lost);
  checkpointer_.FailAll(lost);
  AnswerUncovered(absl::InfinitePast(), lost);
}

absl::Status Coordinator::LostStatus() const {
  if (env_.durability != Durability::kCheckpoint || no_return_) {
    return ShardsLost(Facts(), lost_by_, lost_because_);
  }
  return absl::UnavailableError(absl::StrCat(
      "optimizer \"", name_, "\": all servers return to the last checkpoint, since server ",
      lost_by_, " restarted"));
}

// ---- leases

void Coordinator::Tick() {
  Run([this] {
    const absl::Time now = env_.clock->Now();
    for (const auto& [key, call] : open_) {
      Session* session = sessions_.Find(call->session);
      if (session != nullptr && call->reply && !call->caller.gone()) sessions_.Renew(session);
    }
    sessions_.Tick();
    Release(snapshots_.Expire());
    if (staged_ != nullptr && staged_->staging != 0 && !staged_->preparing &&
        staged_->change.checkpoint_id().empty()) {
      std::set<uint64_t> writers = staged_->handed;
      writers.insert(staged_->whole_session);
      for (const uint64_t number : writers) {
        Session* session = sessions_.Find(number);
        if (session != nullptr && !sessions_.Lapsed(*session)) continue;
        DropStaged(absl::OkStatus());
        break;
      }
    }
    ReturnWhenAllAreThere();
    checkpointer_.Tick(now);
    CheckpointWhenDue(now);
    AnswerUncovered(now, absl::OkStatus());
    PumpSteps();
    AnswerWaitingSteps(now);
    AnswerProposers(now);
    AnswerOpenSessions();
    ServeSnapshotWaiters();
    AnswerPendingHolds(now);
    const bool sessions =
        std::any_of(sessions_.live().begin(), sessions_.live().end(),
                    [this](const auto& entry) { return !sessions_.Lapsed(entry.second); });
    if (state_ != State::kAbsent || staged_ != nullptr || sessions || !pipeline_.empty() ||
        !alone_.empty()) {
      last_needed_ = now;
    }
    // Whoever was told that it recovers calls again.
    idle_ = now - last_needed_ >= env_.lease;
  });
}

void Coordinator::Drain() {
  Run([this] {
    draining_ = true;
    FailAllCalls(absl::UnavailableError("the server is shutting down"));
  });
}

Coordinator::~Coordinator() {
  const absl::Status ended = absl::UnavailableError("the coordinator ended; repeat the call");
  FailAllCalls(ended);
  for (const auto& [key, call] : open_) {
    if (call->reply) call->reply(ended);
  }
}

void Coordinator::FailAllCalls(const absl::Status& status) {
  // Steps that are prepared run to their end; their callers hear of it.
  FailWaiting(status);
  FailSnapshotWaiters(status);
  for (OpeningSession& opening : std::exchange(opening_, {})) opening.reply(status);
  checkpointer_.FailAll(status);
  AnswerUncovered(absl::InfinitePast(), status);
  if (staged_ == nullptr) return;
  for (Proposer& proposer : std::exchange(staged_->proposers, {})) proposer.reply(status);
}

}  // namespace shardstep
