#include "shardstep/server/shard_host.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/server/ballot.h"
#include "shardstep/server/faults.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

// Below so many elements the hop to another thread costs more than the work.
constexpr int64_t kInlineElements = 16 * 1024;

}  // namespace

ShardHost::ShardHost(std::string optimizer, const ShardHostEnvironment& environment,
                     const v1::CatalogEntry* found, const v1::FenceEntry* fences)
    : name_(std::move(optimizer)), env_(environment), pushes_(environment.push_memory) {
  if (found != nullptr) {
    lost_by_ = env_.server_rank;
    lineage_ = found->lineage();
    version_ = noted_version_ = found->version();
    last_checkpoint_ = found->last_checkpoint();
  }
  if (fences != nullptr) {
    coordinator_incarnation_ = fences->coordinator_incarnation();
    for (const v1::AnnounceSessions::Session& session : fences->sessions()) {
      pushes_.Announce(session);
      announced_[session.trainer_rank()] = session;
    }
  }
}

OptimizerFacts ShardHost::Facts() const {
  return {name_,
          version_,
          lineage_,
          env_.incarnation,
          layout_ == nullptr ? std::string() : layout_->plan.plan_id,
          last_checkpoint_};
}

absl::Status ShardHost::CheckLive(const v1::CallHeader& header) const {
  if (recovering_) {
    return absl::UnavailableError(
        absl::StrCat("optimizer \"", name_, "\": server ", env_.server_rank, " reads its log"));
  }
  if (lost_by_.has_value() && env_.durability == Durability::kCheckpoint) {
    return absl::UnavailableError(absl::StrCat("optimizer \"", name_,
                                               "\": returns to its last checkpoint, since server ",
                                               *lost_by_, " restarted"));
  }
  if (lost_by_.has_value()) return ShardsLost(Facts(), *lost_by_, lost_because_);
  if (layout_ == nullptr) return NoSuchOptimizer(name_, {});
  return CheckBeliefs(header, Facts());
}

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

v1::Description ShardHost::DescriptionNow() const {
  v1::Description description = layout_->description;
  *description.mutable_groups() = GroupsToProto(optimizer_->groups(), layout_->parameters);
  return description;
}

v1::FenceEntry ShardHost::FencesNow() const {
  v1::FenceEntry fences;
  fences.set_optimizer(name_);
  fences.set_coordinator_incarnation(coordinator_incarnation_);
  for (const auto& [rank, session] : announced_) *fences.add_sessions() = session;
  return fences;
}

absl::Status ShardHost::WriteFences(const v1::FenceEntry& fences) const {
  if (env_.durability == Durability::kNone) return absl::OkStatus();
  return env_.catalog->WriteFences(name_, fences);
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

void ShardHost::Pump() {
  while (!busy_ && !recovering_) {
    if (!connecting_.empty()) {
      // What is on its way to the log must be in the welcome, or never be answered.
      if (log_ != nullptr && !log_->idle()) return;
      PumpConnecting();
    } else if (!queue_.empty()) {
      v1::PeerMessage message = std::move(queue_.front());
      queue_.pop_front();
      busy_ = true;
      Execute(std::move(message));
    } else {
      return;
    }
  }
}

void ShardHost::Done() {
  busy_ = false;
  // From the serializer's loop, not from here: Execute may have called us from within Pump.
  serializer_.Run([self = shared_from_this()] { self->Pump(); });
}

void ShardHost::Execute(v1::PeerMessage message) {
  switch (message.body_case()) {
    case v1::PeerMessage::kSessions:
      return OnSessions(message.sessions());
    case v1::PeerMessage::kStage:
      OnStage(message.stage());
      return Done();
    case v1::PeerMessage::kDropStaging:
      if (staging_.has_value() && staging_->id() == message.drop_staging().staging()) {
        staging_.reset();
      }
      return Done();
    case v1::PeerMessage::kPrepare:
      return OnPrepare(std::make_shared<const v1::Prepare>(std::move(*message.mutable_prepare())));
    case v1::PeerMessage::kReduce:
      return OnReduce(message.reduce());
    case v1::PeerMessage::kCommit:
      return OnCommit(message.commit());
    case v1::PeerMessage::kHold:
      OnHold(message.hold());
      return Done();
    case v1::PeerMessage::kRelease:
      for (const uint64_t snapshot : message.release().snapshots()) holds_.erase(snapshot);
      return Done();
    case v1::PeerMessage::kReadManifest:
      OnReadManifest(message.read_manifest());
      return Done();
    case v1::PeerMessage::kBeginCheckpoint:
      OnBeginCheckpoint(message.begin_checkpoint());
      return Done();
    case v1::PeerMessage::kWriteCheckpoint:
      OnWriteCheckpoint(message.write_checkpoint());
      return Done();
    case v1::PeerMessage::kFinishCheckpoint:
      OnFinishCheckpoint(message.finish_checkpoint());
      return Done();
    case v1::PeerMessage::kNoteCheckpoint:
      return OnNoteCheckpoint(message.note_checkpoint());
    case v1::PeerMessage::kAskStanding: {
      v1::PeerReply reply;
      Welcome(reply.mutable_standing());
      Answer(std::move(reply));
      return Done();
    }
    case v1::PeerMessage::kHello:
    case v1::PeerMessage::kPage:
    case v1::PeerMessage::BODY_NOT_SET:
      return Done();
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

void ShardHost::RunBlocks(int64_t elements, size_t count, std::function<void(size_t)> body,
                          std::function<void()> done) {
  auto finish = [self = shared_from_this(), done = std::move(done)]() mutable {
    self->serializer_.Run(std::move(done));
  };
  if (elements <= kInlineElements) {
    for (size_t i = 0; i < count; ++i) body(i);
    finish();
    return;
  }
  env_.executor->ForEach(count, std::move(body), std::move(finish));
}

void ShardHost::RunBlocking(Executor* executor, std::function<absl::Status()> work,
                            std::function<void(absl::Status)> done) {
  auto status = std::make_shared<absl::Status>();
  executor->ForEach(
      1, [status, work = std::move(work)](size_t) { *status = work(); },
      [self = shared_from_this(), status, done = std::move(done)] {
        self->serializer_.Run([status, done] { done(*status); });
      });
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
      [self = shared_from_this(), this, done](const absl::Status& status) {
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

void ShardHost::BeginPush(v1::Begin begin, Reply<std::shared_ptr<Push>> reply) {
  serializer_.Run([self = shared_from_this(), begin = std::move(begin), reply = std::move(reply)] {
    absl::Status live = self->CheckLive(begin.header());
    live.Update(SHARDSTEP_FAILPOINT("host.push_begun"));
    if (!live.ok()) return reply(live);
    reply(self->pushes_.Begin(begin));
  });
}

void ShardHost::EndPush(std::shared_ptr<Push> push, v1::End end,
                        std::function<void(absl::Status)> done) {
  serializer_.Run([self = shared_from_this(), push = std::move(push), end = std::move(end),
                   done = std::move(done)] {
    absl::Status live = self->CheckLive({});
    live.Update(SHARDSTEP_FAILPOINT("host.push_arrived"));
    done(live.ok() ? self->pushes_.End(push, end) : live);
    SHARDSTEP_PASS("host.push_acknowledged");
  });
}

void ShardHost::BeginWrite(v1::WriteBegin begin, Reply<std::shared_ptr<StagedWrite>> reply) {
  serializer_.Run([self = shared_from_this(), begin = std::move(begin), reply = std::move(reply)] {
    if (!self->staging_.has_value() || self->staging_->id() != begin.staging()) {
      return reply(absl::AbortedError(absl::StrCat("optimizer \"", self->name_, "\": staging ",
                                                   begin.staging(), " is gone; propose again")));
    }
    if (begin.header().plan_id() != self->staging_->layout()->plan.plan_id) {
      return reply(OptimizerError(
          self->Facts(), absl::StatusCode::kFailedPrecondition, v1::PLAN_CHANGED,
          absl::StrCat("staging ", begin.staging(), ": plan ", begin.header().plan_id(),
                       ", expected ", self->staging_->layout()->plan.plan_id)));
    }
    if (self->staging_->HasWrite(begin.header().session())) return reply(nullptr);
    auto write = std::make_shared<StagedWrite>(self->staging_->layout(), self->env_.shard_memory);
    write->staging = begin.staging();
    write->session = begin.header().session();
    reply(std::move(write));
  });
}

void ShardHost::EndWrite(std::shared_ptr<StagedWrite> write, v1::End end,
                         Reply<v1::WriteStateReply> reply) {
  serializer_.Run([self = shared_from_this(), write = std::move(write), end = std::move(end),
                   reply = std::move(reply)] {
    absl::Status status = write->assembly->CheckEnd(end.frames(), end.digest());
    if (!status.ok()) return reply(status);
    if (!self->staging_.has_value() || self->staging_->id() != write->staging) {
      return reply(absl::AbortedError(absl::StrCat("optimizer \"", self->name_, "\": staging ",
                                                   write->staging, " is gone; propose again")));
    }
    status = SHARDSTEP_FAILPOINT("host.write_arrived");
    if (status.ok()) status = self->staging_->Add(write->session, write->assembly);
    if (!status.ok()) return reply(status);
    v1::WriteStateReply written;
    written.set_complete(self->staging_->complete());
    if (written.complete()) self->ReportStaging();
    reply(written);
  });
}

void ShardHost::OpenRead(v1::CallHeader header, uint64_t snapshot,
                         Reply<std::shared_ptr<const HeldVersion>> reply) {
  serializer_.Run(
      [self = shared_from_this(), header = std::move(header), snapshot, reply = std::move(reply)] {
        // A snapshot outlives later plans, so only the server's incarnation is judged.
        const absl::Status live = self->CheckLive({});
        if (!live.ok()) return reply(live);
        v1::CallHeader believed;
        believed.set_incarnation(header.incarnation());
        absl::Status status = CheckBeliefs(believed, self->Facts());
        if (!status.ok()) return reply(status);
        auto held = self->holds_.find(snapshot);
        if (held == self->holds_.end()) {
          return reply(
              OptimizerError(self->Facts(), absl::StatusCode::kAborted, v1::SNAPSHOT_GONE,
                             absl::StrCat("optimizer \"", self->name_, "\": snapshot ", snapshot,
                                          " is not held; it was closed, or its lease ended")));
        }
        reply(held->second);
      });
}

void ShardHost::NoteVersion(std::function<void(absl::Status)> done) {
  serializer_.Run([self = shared_from_this(), done = std::move(done)] {
    if (self->busy_ || self->recovering_) return done(absl::OkStatus());
    if (!self->unanswered_sessions_.empty()) {
      self->busy_ = true;
      return self->KeepSessions([self, done] {
        self->Done();
        done(absl::OkStatus());
      });
    }
    if (self->layout_ == nullptr || self->version_ == self->noted_version_) {
      return done(absl::OkStatus());
    }
    self->busy_ = true;
    self->RunBlocking(
        self->env_.executor,
        [self, entry = self->CatalogEntryNow()] {
          return self->env_.catalog->Write(self->name_, entry);
        },
        [self, version = self->version_, done](absl::Status status) {
          if (status.ok()) self->noted_version_ = version;
          self->Done();
          done(status);
        });
  });
}

void ShardHost::GetStanding(std::function<void(Standing)> done) {
  serializer_.Run([self = shared_from_this(), done = std::move(done)] {
    done({self->layout_ != nullptr, self->lineage_, self->version_, self->chain_hash_});
  });
}

v1::CatalogEntry ShardHost::CatalogEntryNow() const {
  v1::CatalogEntry entry;
  *entry.mutable_description() = layout_->description;
  entry.set_lineage(lineage_);
  entry.set_version(version_);
  entry.set_last_checkpoint(last_checkpoint_);
  return entry;
}

}  // namespace shardstep
