#include "shardstep/client/state_read.h"

#include <map>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
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
      : server_rank_(server_rank), snapshot_(snapshot), sink_(sink) {}

  void Start(Connection* connection, v1::ReadStateRequest request, absl::Time deadline) {
    stream_.reset();
    request.set_skip_bytes(payload_bytes_);
    attempt_ = Attempt();
    {
      MutexLock lock(&mutex_);
      outcome_.reset();
    }
    stream_ = connection->StartRead(server_rank_, request, deadline, this);
  }

  absl::Status Await() {
    {
      MutexLock lock(&mutex_);
      while (!outcome_) changed_.Wait(&mutex_);
    }
    stream_.reset();
    MutexLock lock(&mutex_);
    return *outcome_;
  }

 private:
  struct Attempt {
    bool begun = false;
    uint64_t bytes_to_come = 0;
    uint64_t frames = 0;
    FrameDigest digest;
  };

  void OnSent() override {}

  void OnReceived(const grpc::ByteBuffer& message) override {
    {
      MutexLock lock(&mutex_);
      if (outcome_) return;
    }
    const absl::Status status = Take(message);
    if (!status.ok()) Decide(status);
  }

  void OnClosed(const absl::Status& status) override {
    Decide(status.ok() && !complete_ ? absl::UnavailableError("the server ended the read early")
                                     : status);
  }

  void Decide(const absl::Status& outcome) {
    MutexLock lock(&mutex_);
    if (!outcome_) outcome_ = outcome;
    changed_.NotifyAll();
  }

  absl::Status Take(const grpc::ByteBuffer& message) {
    SHARDSTEP_ASSIGN_OR_RETURN(const ReceivedFrame received, ReceivedFrame::FromBuffer(message));
    SHARDSTEP_ASSIGN_OR_RETURN(const FrameView frame, received.Decode());
    if (frame.header.kind_case() == v1::FrameHeader::kReadBegin) {
      return TakeBegin(frame.header.read_begin());
    }
    if (!attempt_.begun) return absl::InternalError("a read without a beginning");
    switch (frame.header.kind_case()) {
      case v1::FrameHeader::kSlices:
        return TakeSlices(frame);
      case v1::FrameHeader::kScalars:
        CountFrame(frame);
        for (const v1::Scalars::Scalar& scalar : frame.header.scalars().scalars()) {
          SHARDSTEP_RETURN_IF_ERROR(sink_->TakeScalar(scalar));
        }
        return absl::OkStatus();
      case v1::FrameHeader::kReadEnd:
        return TakeEnd(frame.header.read_end());
      default:
        return absl::InternalError("a frame that does not belong into a read");
    }
  }

  absl::Status TakeBegin(const v1::ReadBegin& begin) {
    if (begin.version() != snapshot_.version() || begin.lineage() != snapshot_.lineage()) {
      return absl::InternalError(absl::StrCat("server ", server_rank_, " answered with version ",
                                              begin.version(), " of lineage ", begin.lineage(),
                                              ", expected version ", snapshot_.version(),
                                              " of lineage ", snapshot_.lineage()));
    }
    attempt_.begun = true;
    attempt_.bytes_to_come = begin.bytes();
    return absl::OkStatus();
  }

  absl::Status TakeSlices(const FrameView& frame) {
    SHARDSTEP_RETURN_IF_ERROR(CheckSlices(frame));
    if (frame.payload_bytes > attempt_.bytes_to_come) {
      return absl::InternalError("more bytes than the read began with");
    }
    CountFrame(frame);
    PayloadReader payload(frame);
    for (const v1::Slice& slice : frame.header.slices().slices()) {
      SHARDSTEP_RETURN_IF_ERROR(sink_->Take(server_rank_, slice, &payload));
    }
    attempt_.bytes_to_come -= frame.payload_bytes;
    payload_bytes_ += frame.payload_bytes;
    return absl::OkStatus();
  }

  absl::Status TakeEnd(const v1::ReadEnd& end) {
    if (end.frames() != attempt_.frames || end.digest() != attempt_.digest.value() ||
        attempt_.bytes_to_come != 0) {
      return absl::DataLossError("the read ended with other frames than were received");
    }
    complete_ = true;
    return absl::OkStatus();
  }

  void CountFrame(const FrameView& frame) {
    ++attempt_.frames;
    attempt_.digest.Add(frame.crc32c);
  }

  const int server_rank_;
  const v1::Snapshot& snapshot_;
  SliceSink* const sink_;

  // Used by the stream's events, and between streams.
  Attempt attempt_;
  uint64_t payload_bytes_ = 0;  // in the sink, of all attempts
  bool complete_ = false;

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
    for (auto& [server_rank, read] : reads) read.Start(connection, request, deadline);
    absl::Status failed;
    int failed_rank = 0;
    for (auto it = reads.begin(); it != reads.end();) {
      const absl::Status status = it->second.Await();
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
