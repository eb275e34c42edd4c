// A shard host's part in checkpoints: files are read and written beside the messages, so that
// training goes on.

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/server/faults.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

// Of all bytes, between two reports.
constexpr int64_t kReports = 50;
constexpr int64_t kLeastReportBytes = 4 << 20;

}  // namespace

void ShardHost::RunOnDisk(std::function<v1::PeerReply()> work) {
  auto reply = std::make_shared<v1::PeerReply>();
  env_.disk->ForEach(
      1, [reply, work = std::move(work)](size_t) { *reply = work(); },
      [self = shared_from_this(), reply] {
        self->serializer_.Run([self, reply] { self->Answer(std::move(*reply)); });
      });
}

std::function<void(int64_t done, int64_t total)> ShardHost::Progress(v1::FileProgress what) {
  auto reported = std::make_shared<int64_t>(0);
  return
      [self = shared_from_this(), what = std::move(what), reported](int64_t done, int64_t total) {
        if (done - *reported < std::max(kLeastReportBytes, total / kReports)) return;
        *reported = done;
        v1::PeerReply reply;
        *reply.mutable_file_progress() = what;
        reply.mutable_file_progress()->set_bytes_done(done);
        reply.mutable_file_progress()->set_bytes_total(total);
        self->serializer_.Run([self, reply = std::move(reply)] { self->Answer(reply); });
      };
}

void ShardHost::FillFromCheckpoint(const std::string& checkpoint_id) {
  struct Filling {
    Staging staging;
    std::shared_ptr<Assembly> write;
    absl::Status status;
  };
  // A copy that the disk's thread may read: nothing was written into it yet.
  auto filling = std::make_shared<Filling>(
      Filling{*staging_,
              std::make_shared<Assembly>(staging_->layout(), env_.shard_memory,
                                         Assembly::Takes::kParametersAndState),
              {}});
  v1::FileProgress what;
  what.set_staging(staging_->id());
  env_.disk->ForEach(
      1,
      [this, filling, checkpoint_id, progress = Progress(what)](size_t) {
        filling->status =
            env_.checkpoints->Fill(filling->staging, checkpoint_id, filling->write.get(), progress);
      },
      [self = shared_from_this(), this, filling] {
        serializer_.Run([self, this, filling] {
          if (!staging_.has_value() || staging_->id() != filling->staging.id()) return;
          if (filling->status.ok()) {
            filling->status = staging_->Add(/*session=*/0, std::move(filling->write));
          }
          if (filling->status.ok()) return ReportStaging();
          const uint64_t staging = staging_->id();
          staging_.reset();
          ReportStagingError(staging, filling->status);
        });
      });
}

void ShardHost::OnReadManifest(const v1::ReadManifest& request) {
  RunOnDisk([self = shared_from_this(), request] {
    v1::PeerReply reply;
    v1::ManifestRead* read = reply.mutable_manifest_read();
    auto facts = self->env_.checkpoints->ReadManifest(self->name_, request);
    read->set_request(request.request());
    if (facts.ok()) {
      *read->mutable_facts() = *std::move(facts);
    } else {
      *read->mutable_error() = ToRichStatus(facts.status());
    }
    return reply;
  });
}

void ShardHost::OnBeginCheckpoint(const v1::BeginCheckpoint& request) {
  RunOnDisk([self = shared_from_this(), request] {
    v1::PeerReply reply;
    SHARDSTEP_PASS("host.begin_checkpoint");
    auto begun = self->env_.checkpoints->Begin(self->name_, request);
    if (begun.ok()) {
      *reply.mutable_checkpoint_begun() = *std::move(begun);
    } else {
      reply.mutable_checkpoint_begun()->set_checkpoint(request.checkpoint());
      *reply.mutable_checkpoint_begun()->mutable_error() = ToRichStatus(begun.status());
    }
    return reply;
  });
}

void ShardHost::OnWriteCheckpoint(const v1::WriteCheckpoint& request) {
  const auto found = holds_.find(request.snapshot());
  v1::FileProgress what;
  what.set_checkpoint(request.checkpoint());
  RunOnDisk([self = shared_from_this(), request, progress = Progress(what),
             held = found == holds_.end() ? nullptr : found->second] {
    v1::PeerReply reply;
    absl::StatusOr<v1::CheckpointWritten> written = absl::AbortedError(absl::StrCat(
        "optimizer \"", self->name_, "\": snapshot ", request.snapshot(), " is not held here"));
    if (held != nullptr) written = self->env_.checkpoints->Write(*held, request, progress);
    SHARDSTEP_PASS("host.checkpoint_written");
    if (written.ok()) {
      *reply.mutable_checkpoint_written() = *std::move(written);
    } else {
      reply.mutable_checkpoint_written()->set_checkpoint(request.checkpoint());
      *reply.mutable_checkpoint_written()->mutable_error() = ToRichStatus(written.status());
    }
    return reply;
  });
}

void ShardHost::OnFinishCheckpoint(const v1::FinishCheckpoint& request) {
  RunOnDisk([self = shared_from_this(), request] {
    v1::PeerReply reply;
    SHARDSTEP_PASS("host.finish_checkpoint");
    const absl::Status finished = self->env_.checkpoints->Finish(self->name_, request);
    SHARDSTEP_PASS("host.checkpoint_finished");
    reply.mutable_checkpoint_finished()->set_checkpoint(request.checkpoint());
    if (!finished.ok()) {
      *reply.mutable_checkpoint_finished()->mutable_error() = ToRichStatus(finished);
    }
    return reply;
  });
}

void ShardHost::OnNoteCheckpoint(const v1::NoteCheckpoint& note) {
  last_checkpoint_ = note.checkpoint_id();
  if (layout_ == nullptr) return Done();
  RunBlocking(
      env_.executor,
      [self = shared_from_this(), entry = CatalogEntryNow()] {
        return self->env_.catalog->Write(self->name_, entry);
      },
      // It is only for a message; the next note of the version tries again.
      [self = shared_from_this()](const absl::Status&) { self->Done(); });
}

}  // namespace shardstep
