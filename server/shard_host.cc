#include "shardstep/server/shard_host.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/wire/definition.h"

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

v1::Description ShardHost::DescriptionNow() const {
  v1::Description description = layout_->description;
  *description.mutable_groups() = GroupsToProto(optimizer_->groups(), layout_->parameters);
  return description;
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
