#include "shardstep/server/log_queue.h"

#include <utility>

#include "absl/strings/string_view.h"
#include "shardstep/server/ballot.h"
#include "shardstep/server/device.h"

namespace shardstep {

LogQueue::LogQueue(std::unique_ptr<WriteAheadLog> log, Outside outside)
    : log_(std::move(log)),
      outside_(std::move(outside)),
      bytes_behind_base_(log_->bytes_behind_base()) {}

void LogQueue::Write(v1::LogRecord record, std::vector<at::Tensor> payload, bool sync,
                     std::shared_ptr<uint64_t> lsn, Done done) {
  Entry entry;
  entry.is_record = true;
  entry.sync = sync;
  if (record.has_decision()) entry.decided = record.decision().commit().ballot();
  entry.work = [record = std::move(record), payload = std::move(payload),
                lsn = std::move(lsn)](WriteAheadLog* log) {
    std::vector<absl::string_view> bytes;
    for (const at::Tensor& tensor : payload) bytes.push_back(HostBytes(tensor));
    const absl::StatusOr<uint64_t> number = log->Append(record, bytes);
    if (number.ok() && lsn != nullptr) *lsn = *number;
    return number.status();
  };
  entry.done = std::move(done);
  Add(std::move(entry));
}

void LogQueue::Run(std::function<absl::Status(WriteAheadLog*)> work, Done done) {
  Entry entry;
  entry.work = std::move(work);
  entry.done = std::move(done);
  Add(std::move(entry));
}

void LogQueue::Add(Entry entry) {
  waiting_.push_back(std::move(entry));
  Pump();
}

void LogQueue::Pump() {
  if (busy_ || waiting_.empty()) return;
  busy_ = true;
  auto batch = std::make_shared<Batch>();
  batch->entries.swap(waiting_);
  outside_.executor->ForEach(
      1, [self = shared_from_this(), batch](size_t) { self->WorkOff(batch.get()); },
      [self = shared_from_this(), batch] {
        self->outside_.run([self, batch] { self->Finish(batch.get()); });
      });
}

void LogQueue::WorkOff(Batch* batch) {
  bool sync = false;
  for (Entry& entry : batch->entries) {
    entry.status = entry.work(log_.get());
    if (!entry.is_record) continue;
    if (!entry.status.ok() && !absl::IsResourceExhausted(entry.status)) {
      batch->fatal = entry.status;
      return;
    }
    sync = sync || (entry.sync && entry.status.ok());
  }
  if (sync) batch->fatal = log_->Sync();
  batch->bytes_behind_base = log_->bytes_behind_base();
}

void LogQueue::Finish(Batch* batch) {
  if (!batch->fatal.ok()) return outside_.fatal(batch->fatal);
  busy_ = false;
  bytes_behind_base_ = batch->bytes_behind_base;
  bool synced = false;
  for (const Entry& entry : batch->entries) {
    if (!entry.is_record || !entry.status.ok()) continue;
    if (BallotLess(decided_, entry.decided)) decided_ = entry.decided;
    synced = synced || entry.sync;
  }
  if (synced && BallotLess(synced_, decided_)) {
    synced_ = decided_;
    outside_.synced(synced_);
  }
  for (Entry& entry : batch->entries) entry.done(entry.status);
  Pump();
  if (idle()) outside_.idle();
}

}  // namespace shardstep
