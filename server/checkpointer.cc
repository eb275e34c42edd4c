#include "shardstep/server/checkpointer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

constexpr size_t kMaxRuns = 64;
constexpr size_t kRemembered = 64;

}  // namespace

Checkpointer::Checkpointer(int servers, Outside outside)
    : servers_(servers), outside_(std::move(outside)) {}

void Checkpointer::Ask(const v1::CheckpointRequest& request, Caller caller,
                       Reply<v1::CheckpointReply> reply) {
  const std::string& request_id = request.header().request_id();
  if (request_id.empty()) {
    return reply(absl::InvalidArgumentError("the call has no request id"));
  }
  const auto done = done_.find(request_id);
  if (done != done_.end()) {
    v1::CheckpointReply again;
    *again.mutable_done() = done->second;
    return reply(again);
  }
  for (const auto& run : runs_) {
    if (run->request_id != request_id) continue;
    run->waiters.push_back({std::move(caller), std::move(reply)});
    return;
  }
  if (runs_.size() >= kMaxRuns) {
    return reply(absl::ResourceExhaustedError("too many checkpoints are asked for"));
  }
  auto run = std::make_unique<Run>();
  run->request_id = request_id;
  run->checkpoint_id = request.checkpoint_id();
  run->waiters.push_back({std::move(caller), std::move(reply)});
  Enqueue(std::move(run));
}

void Checkpointer::AskAutomatic() {
  if (automatic()) return;
  auto run = std::make_unique<Run>();
  run->automatic = true;
  Enqueue(std::move(run));
}

bool Checkpointer::automatic() const {
  return std::any_of(runs_.begin(), runs_.end(), [](const auto& run) { return run->automatic; });
}

void Checkpointer::Enqueue(std::unique_ptr<Run> run) {
  run->number = ++last_number_;
  runs_.push_back(std::move(run));
  StartNext();
}

void Checkpointer::StartNext() {
  if (runs_.empty() || std::exchange(runs_.front()->started, true)) return;
  const uint64_t number = runs_.front()->number;
  outside_.hold([this, number](absl::StatusOr<v1::OpenSnapshotReply> opened) {
    Run* const run = Find(number);
    if (run == nullptr) {
      if (opened.ok()) outside_.close(opened->snapshot().snapshot());
      return;
    }
    if (!opened.ok()) return End(opened.status());
    run->snapshot = opened->snapshot().snapshot();
    run->facts = outside_.facts();
    run->facts.set_automatic(run->automatic);
    run->answered.assign(servers_, false);
    run->written.resize(servers_);
    run->progress.resize(servers_);
    v1::PeerMessage message;
    v1::BeginCheckpoint* begin = message.mutable_begin_checkpoint();
    begin->set_checkpoint(number);
    begin->set_checkpoint_id(run->checkpoint_id);
    begin->set_version(run->facts.version());
    begin->set_lineage_ordinal(run->facts.lineage_ordinal());
    outside_.send(0, std::move(message));
  });
}

Checkpointer::Run* Checkpointer::Find(uint64_t number) {
  return runs_.empty() || runs_.front()->number != number ? nullptr : runs_.front().get();
}

void Checkpointer::OnBegun(const v1::CheckpointBegun& begun) {
  Run* const run = Find(begun.checkpoint());
  if (run == nullptr || run->begun) return;
  if (begun.has_error()) return End(FromRichStatus(begun.error()));
  run->begun = true;
  run->checkpoint_id = begun.checkpoint_id();
  run->facts.set_checkpoint_id(begun.checkpoint_id());
  run->facts.set_lineage_ordinal(begun.lineage_ordinal());
  for (int server = 0; server < servers_; ++server) {
    v1::PeerMessage message;
    v1::WriteCheckpoint* write = message.mutable_write_checkpoint();
    write->set_checkpoint(run->number);
    write->set_checkpoint_id(run->checkpoint_id);
    write->set_token(begun.token());
    write->set_snapshot(run->snapshot);
    write->set_servers(servers_);
    outside_.send(server, std::move(message));
  }
}

void Checkpointer::OnWritten(int server, const v1::CheckpointWritten& written) {
  Run* const run = Find(written.checkpoint());
  if (run == nullptr || run->answered[server]) return;
  run->answered[server] = true;
  run->written[server] = written;
  if (written.has_error() && run->error.ok()) {
    run->error = FromRichStatus(written.error());
    // A hold that is gone: the same call may well succeed.
    if (absl::IsAborted(run->error)) run->error = absl::UnavailableError(run->error.message());
  }
  // Also after an error: nobody may write into a directory that is removed.
  if (std::find(run->answered.begin(), run->answered.end(), false) != run->answered.end()) return;
  v1::PeerMessage message;
  v1::FinishCheckpoint* finish = message.mutable_finish_checkpoint();
  finish->set_checkpoint(run->number);
  finish->set_checkpoint_id(run->checkpoint_id);
  if (run->error.ok()) {
    for (const v1::CheckpointWritten& part : run->written) {
      for (const v1::CheckpointFile& file : part.files()) *run->facts.add_files() = file;
    }
    *finish->mutable_facts() = run->facts;
  }
  outside_.send(0, std::move(message));
}

void Checkpointer::OnFinished(const v1::CheckpointFinished& finished) {
  Run* const run = Find(finished.checkpoint());
  if (run == nullptr) return;
  absl::Status status = run->error;
  if (finished.has_error()) status.Update(FromRichStatus(finished.error()));
  End(status);
}

void Checkpointer::OnProgress(int server, const v1::FileProgress& progress) {
  Run* const run = Find(progress.checkpoint());
  if (run != nullptr && run->begun) run->progress[server] = progress;
}

void Checkpointer::GetProgress(uint64_t* done, uint64_t* total) const {
  *done = *total = 0;
  if (runs_.empty()) return;
  for (const v1::FileProgress& server : runs_.front()->progress) {
    *done += server.bytes_done();
    *total += server.bytes_total();
  }
}

void Checkpointer::End(const absl::Status& status) {
  const std::unique_ptr<Run> run = std::move(runs_.front());
  runs_.pop_front();
  if (run->snapshot != 0) outside_.close(run->snapshot);
  v1::CheckpointReply reply;
  v1::CheckpointReply::Done* done = reply.mutable_done();
  done->set_checkpoint_id(run->facts.checkpoint_id());
  done->set_version(run->facts.version());
  for (const v1::CheckpointFile& file : run->facts.files()) {
    done->set_bytes(done->bytes() + file.bytes());
  }
  if (status.ok() && !run->request_id.empty()) {
    done_[run->request_id] = *done;
    done_order_.push_back(run->request_id);
    if (done_order_.size() > kRemembered) {
      done_.erase(done_order_.front());
      done_order_.pop_front();
    }
  }
  for (const Waiter& waiter : run->waiters) {
    if (status.ok()) {
      waiter.reply(reply);
    } else {
      waiter.reply(status);
    }
  }
  if (status.ok()) {
    outside_.ended(run->facts);
  } else {
    outside_.ended(status);
  }
  StartNext();
}

void Checkpointer::Tick(absl::Time now) {
  if (!runs_.empty() && runs_.front()->snapshot != 0) outside_.renew(runs_.front()->snapshot);
  for (size_t i = 0; i < runs_.size(); ++i) {
    std::vector<Waiter> still;
    for (Waiter& waiter : std::exchange(runs_[i]->waiters, {})) {
      if (now < waiter.caller.answer_by) {
        still.push_back(std::move(waiter));
        continue;
      }
      v1::CheckpointReply pending;
      uint64_t done = 0;
      uint64_t total = 0;
      if (i == 0) GetProgress(&done, &total);
      pending.mutable_pending()->set_bytes_done(done);
      pending.mutable_pending()->set_bytes_total(total);
      waiter.reply(pending);
    }
    runs_[i]->waiters = std::move(still);
  }
}

void Checkpointer::FailAll(const absl::Status& status) {
  if (runs_.empty()) return;
  std::deque<std::unique_ptr<Run>> failed = std::move(runs_);
  runs_.clear();
  for (const auto& run : failed) {
    if (run->snapshot != 0) outside_.close(run->snapshot);
    for (const Waiter& waiter : run->waiters) waiter.reply(status);
  }
  outside_.ended(status);
}

}  // namespace shardstep
