#include "shardstep/client/state_read.h"

#include <map>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "shardstep/client/read_progress.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/byte_buffer.h"
#include "shardstep/wire/frame.h"

namespace shardstep::internal {
namespace {

// One server's part, over as many attempts as it takes.
class StateRead final : private StreamListener {
 public:
  StateRead(int server_rank, const v1::Snapshot& snapshot, SliceSink* sink)
      : server_rank_(server_rank), sink_(sink), progress_(server_rank, snapshot) {}

  void Start(Connection* connection, v1::ReadStateRequest request) {
    stream_.reset();
    request.set_skip_bytes(progress_.payload_bytes());
    progress_.Restart();
    {
      MutexLock lock(&mutex_);
      outcome_.reset();
    }
    stream_ = connection->StartRead(server_rank_, request, this);
  }

  absl::Status Await(const Retry& retry) {
    {
      MutexLock lock(&mutex_);
      while (!outcome_) {
        if (!changed_.WaitFor(&mutex_, retry.AttemptTimeout(absl::InfiniteDuration())) &&
            !outcome_) {
          outcome_ = ReadTookTooLong();
        }
      }
    }
    stream_.reset();
    MutexLock lock(&mutex_);
    return *outcome_;
  }

 private:
  void OnSent() override {}

  void OnReceived(const grpc::ByteBuffer& message) override {
    {
      MutexLock lock(&mutex_);
      if (outcome_) return;
    }
    const absl::Status status = Take(message);
    if (!status.ok()) Decide(status);
  }

  bool Complete() override {
    MutexLock lock(&mutex_);
    return progress_.complete() && !outcome_;
  }

  void OnClosed(const absl::Status& status) override {
    Decide(status.ok() && !progress_.complete()
               ? absl::UnavailableError("the server ended the read early")
               : status);
  }

  void Decide(const absl::Status& outcome) {
    {
      MutexLock lock(&mutex_);
      if (!outcome_) outcome_ = outcome;
    }
    // Not under the lock, which the thread that wakes takes first; it awaits the stream's end, and
    // with it that of this call.
    changed_.NotifyAll();
  }

  absl::Status Take(const grpc::ByteBuffer& message) {
    SHARDSTEP_ASSIGN_OR_RETURN(const ReceivedFrame received, ReceivedFrame::FromBuffer(message));
    SHARDSTEP_ASSIGN_OR_RETURN(const FrameView frame, received.Decode());
    SHARDSTEP_RETURN_IF_ERROR(progress_.Take(frame));
    PayloadReader payload(frame);
    for (const v1::Slice& slice : frame.header.slices().slices()) {
      SHARDSTEP_RETURN_IF_ERROR(sink_->Take(server_rank_, slice, &payload));
    }
    for (const v1::Scalars::Scalar& scalar : frame.header.scalars().scalars()) {
      SHARDSTEP_RETURN_IF_ERROR(sink_->TakeScalar(scalar));
    }
    return absl::OkStatus();
  }

  const int server_rank_;
  SliceSink* const sink_;

  // Used by the stream's events, and between streams.
  ReadProgress progress_;

  Mutex mutex_;
  CondVar changed_;
  std::optional<absl::Status> outcome_ ABSL_GUARDED_BY(mutex_);

  // Last: its events use the members above.
  std::unique_ptr<ByteStream> stream_;
};

}  // namespace

absl::Status ReadStateFromAll(Connection* connection, const v1::ReadStateRequest& request,
                              const v1::Snapshot& snapshot, SliceSink* sink,
                              const RetryPolicy& policy, absl::Time deadline) {
  Retry retry(policy, deadline);
  std::map<int, StateRead> reads;  // of servers that have not sent all
  for (int server_rank : sink->Servers()) {
    reads.try_emplace(server_rank, server_rank, snapshot, sink);
  }
  while (true) {
    for (auto& [server_rank, read] : reads) read.Start(connection, request);
    absl::Status failed;
    int failed_rank = 0;
    for (auto it = reads.begin(); it != reads.end();) {
      const absl::Status status = it->second.Await(retry);
      if (status.ok()) {
        it = reads.erase(it);
        continue;
      }
      // A final error stands before those that may pass.
      if (failed.ok() || (IsTransient(failed) && !IsTransient(status))) {
        failed = status;
        failed_rank = it->first;
      }
      ++it;
    }
    if (failed.ok()) return sink->Finish();
    if (!retry.Again(failed)) return retry.Explain(connection->ServerName(failed_rank), failed);
  }
}

}  // namespace shardstep::internal
