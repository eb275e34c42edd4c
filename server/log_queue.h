// LogQueue: one thread's worth of work on a write-ahead log, in order, off the caller's thread.
// What waits while the disk is at work is done in one go, with one sync for all that asks for it
// (group commit).
#ifndef SHARDSTEP_SERVER_LOG_QUEUE_H_
#define SHARDSTEP_SERVER_LOG_QUEUE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "shardstep/server/executor.h"
#include "shardstep/server/write_ahead_log.h"
#include "shardstep/v1/log.pb.h"
#include "shardstep/v1/peer.pb.h"

namespace shardstep {

// Confined to its owner's serializer; the log is touched by its jobs only. Made by
// std::make_shared.
class LogQueue : public std::enable_shared_from_this<LogQueue> {
 public:
  struct Outside {
    Executor* executor = nullptr;
    // Runs a task in the owner's serializer.
    std::function<void(std::function<void()>)> run;
    // The disk did not keep what it was told to: nothing that waits is answered.
    std::function<void(const absl::Status&)> fatal;
    // All decisions under this ballot and lower ones are on the disk.
    std::function<void(const v1::Ballot&)> synced;
    // Nothing waits any more.
    std::function<void()> idle;
  };
  LogQueue(std::unique_ptr<WriteAheadLog> log, Outside outside);

  using Done = std::function<void(absl::Status)>;
  // Appends a record with the bytes of `payload` behind it, which must not change until it is done.
  // `lsn`, if there is one, gets its number. With `sync` done() comes when it is on the disk.
  // RESOURCE_EXHAUSTED: the disk is full, and it was not written.
  void Write(v1::LogRecord record, std::vector<at::Tensor> payload, bool sync,
             std::shared_ptr<uint64_t> lsn, Done done);
  // Runs `work` on the log in its turn. Its errors are the caller's.
  void Run(std::function<absl::Status(WriteAheadLog*)> work, Done done);

  // For what may run beside the queue: see WriteAheadLog.
  WriteAheadLog* log() const { return log_.get(); }
  bool idle() const { return !busy_ && waiting_.empty(); }
  // See WriteAheadLog; as of the last work done.
  int64_t bytes_behind_base() const { return bytes_behind_base_; }

 private:
  struct Entry {
    std::function<absl::Status(WriteAheadLog*)> work;
    bool is_record = false;
    bool sync = false;
    // Of a decision.
    v1::Ballot decided;
    Done done;
    absl::Status status;
  };

  void Add(Entry entry);
  void Pump();
  struct Batch {
    std::vector<Entry> entries;
    absl::Status fatal;
    int64_t bytes_behind_base = 0;
  };
  // On the executor.
  void WorkOff(Batch* batch);
  void Finish(Batch* batch);

  const std::unique_ptr<WriteAheadLog> log_;
  const Outside outside_;
  bool busy_ = false;
  int64_t bytes_behind_base_;
  std::vector<Entry> waiting_;
  // Written; and of those, on the disk.
  v1::Ballot decided_;
  v1::Ballot synced_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_LOG_QUEUE_H_
