#include "shardstep/server/shard_host.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

// Below so many elements the hop to another thread costs more than the work.
constexpr int64_t kInlineElements = 16 * 1024;

}  // namespace

ShardHost::ShardHost(std::string optimizer, const ShardHostEnvironment& environment,
                     const v1::CatalogEntry* found)
    : name_(std::move(optimizer)), env_(environment), pushes_(environment.push_memory) {
  if (found == nullptr) return;
  lost_by_ = env_.server_rank;
  lineage_ = found->lineage();
  version_ = noted_version_ = found->version();
  last_checkpoint_ = found->last_checkpoint();
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
  if (lost_by_.has_value()) return ShardsLost(Facts(), *lost_by_);
  if (layout_ == nullptr) return NoSuchOptimizer(name_, {});
  return CheckBeliefs(header, Facts());
}

void ShardHost::Connect(const v1::PeerHello& hello, Send send,
                        std::function<void(absl::Status)> done) {
  serializer_.Run(
      [self = shared_from_this(), hello, send = std::move(send), done = std::move(done)]() mutable {
        if (hello.coordinator_incarnation() < self->coordinator_incarnation_) {
          done(absl::FailedPreconditionError(
              absl::StrCat("coordinator incarnation ", hello.coordinator_incarnation(),
                           " was replaced by ", self->coordinator_incarnation_)));
          return;
        }
        if (hello.coordinator_incarnation() > self->coordinator_incarnation_) {
          // The coordinator's memory is new: with durability "none" its shards are lost, and so the
          // optimizer is.
          if (self->layout_ != nullptr) self->LoseShards(0);
          self->coordinator_incarnation_ = hello.coordinator_incarnation();
          self->inbox_ = Inbox();
          self->outbox_ = Outbox<v1::PeerReply>();
          self->queue_.clear();
          self->staging_.reset();
          self->prepared_.clear();
          self->holds_.clear();
        }
        self->outbox_.Received(hello.received());
        self->send_ = std::move(send);
        done(absl::OkStatus());
        v1::PeerReply first;
        v1::PeerWelcome* welcome = first.mutable_welcome();
        welcome->set_incarnation(self->env_.incarnation);
        welcome->set_received(self->inbox_.last());
        welcome->set_committed_version(self->version_);
        *welcome->mutable_promise() = self->promise_;
        welcome->set_shards_lost(self->lost_by_.has_value());
        welcome->set_noted_version(self->noted_version_);
        for (const auto& [version, change] : self->prepared_) {
          v1::Prepared* prepared = welcome->add_prepared();
          prepared->set_version(version);
          *prepared->mutable_ballot() = change.ballot;
        }
        self->send_(std::move(first));
        for (const v1::PeerReply& kept : self->outbox_.kept()) self->send_(kept);
      });
}

void ShardHost::Receive(v1::PeerMessage message) {
  serializer_.Run([self = shared_from_this(), message = std::move(message)]() mutable {
    self->outbox_.Received(message.received());
    if (!self->inbox_.Accept(message.number())) return;
    self->queue_.push_back(std::move(message));
    self->Pump();
  });
}

void ShardHost::Pump() {
  while (!busy_ && !queue_.empty()) {
    const v1::PeerMessage message = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    Execute(message);
  }
}

void ShardHost::Done() {
  busy_ = false;
  // From the serializer's loop, not from here: Execute may have called us from within Pump.
  serializer_.Run([self = shared_from_this()] { self->Pump(); });
}

void ShardHost::Execute(const v1::PeerMessage& message) {
  switch (message.body_case()) {
    case v1::PeerMessage::kSessions:
      OnSessions(message.sessions());
      return Done();
    case v1::PeerMessage::kStage:
      OnStage(message.stage());
      return Done();
    case v1::PeerMessage::kDropStaging:
      if (staging_.has_value() && staging_->id() == message.drop_staging().staging()) {
        staging_.reset();
      }
      return Done();
    case v1::PeerMessage::kPrepare:
      return OnPrepare(message.prepare());
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
    case v1::PeerMessage::kHello:
    case v1::PeerMessage::BODY_NOT_SET:
      return Done();
  }
}

void ShardHost::Answer(v1::PeerReply reply) {
  reply.set_received(inbox_.last());
  const v1::PeerReply& kept = outbox_.Add(std::move(reply));
  if (send_) send_(kept);
}

void ShardHost::RunBlocks(int64_t elements, size_t count, std::function<void(size_t)> body,
                          std::function<void()> done) {
  auto finish = [self = shared_from_this(), done = std::move(done)] {
    self->serializer_.Run(done);
  };
  if (elements <= kInlineElements) {
    for (size_t i = 0; i < count; ++i) body(i);
    finish();
    return;
  }
  env_.executor->ForEach(count, std::move(body), std::move(finish));
}

void ShardHost::RunBlocking(std::function<absl::Status()> work,
                            std::function<void(absl::Status)> done) {
  auto status = std::make_shared<absl::Status>();
  env_.executor->ForEach(
      1, [status, work = std::move(work)](size_t) { *status = work(); },
      [self = shared_from_this(), status, done = std::move(done)] {
        self->serializer_.Run([status, done] { done(*status); });
      });
}

void ShardHost::OnSessions(const v1::AnnounceSessions& sessions) {
  v1::PeerReply reply;
  for (const v1::AnnounceSessions::Session& session : sessions.sessions()) {
    pushes_.Announce(session);
    reply.mutable_sessions_known()->add_sessions(session.session());
  }
  Answer(std::move(reply));
}

void ShardHost::BeginPush(v1::Begin begin, Reply<std::shared_ptr<Push>> reply) {
  serializer_.Run([self = shared_from_this(), begin = std::move(begin), reply = std::move(reply)] {
    const absl::Status live = self->CheckLive(begin.header());
    if (!live.ok()) return reply(live);
    reply(self->pushes_.Begin(begin));
  });
}

void ShardHost::EndPush(std::shared_ptr<Push> push, v1::End end,
                        std::function<void(absl::Status)> done) {
  serializer_.Run([self = shared_from_this(), push = std::move(push), end = std::move(end),
                   done = std::move(done)] {
    const absl::Status live = self->CheckLive({});
    done(live.ok() ? self->pushes_.End(push, end) : live);
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
    status = self->staging_->Add(write->session, write->assembly);
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
        if (self->lost_by_.has_value()) return reply(ShardsLost(self->Facts(), *self->lost_by_));
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
    if (self->layout_ == nullptr || self->busy_ || self->version_ == self->noted_version_) {
      return done(absl::OkStatus());
    }
    self->busy_ = true;
    self->RunBlocking(
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

v1::CatalogEntry ShardHost::CatalogEntryNow() const {
  v1::CatalogEntry entry;
  *entry.mutable_description() = layout_->description;
  entry.set_lineage(lineage_);
  entry.set_version(version_);
  entry.set_last_checkpoint(last_checkpoint_);
  return entry;
}

}  // namespace shardstep
