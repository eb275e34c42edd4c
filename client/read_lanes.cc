#include "shardstep/client/read_lanes.h"

#include <utility>

#include "shardstep/sharding/status_macros.h"

namespace shardstep::internal {

class ReadLanes::Lane final : private StreamListener {
 public:
  Lane(Events* events, int server_rank, const v1::Snapshot& snapshot)
      : events_(events), server_rank_(server_rank), progress_(server_rank, snapshot) {}

  int server_rank() const { return server_rank_; }

  void Start(Connection* connection, v1::ReadStateRequest request) {
    stream_.reset();
    request.set_skip_bytes(progress_.payload_bytes());
    progress_.Restart();
    {
      MutexLock lock(&events_->mutex);
      queue_.clear();
      queued_ = 0;
      closed_.reset();
    }
    stream_ = connection->StartRead(server_rank_, request, this);
    stream_->CloseSending();
  }

  // Tells the static analysis that the mutex its caller holds is this one's.
  void AssertLocked() const ABSL_ASSERT_EXCLUSIVE_LOCK(events_->mutex) {
    events_->mutex.AssertHeld();
  }

  bool ready() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(events_->mutex) {
    return !queue_.empty() || closed_.has_value();
  }

  void TimeOut() ABSL_EXCLUSIVE_LOCKS_REQUIRED(events_->mutex) {
    if (!closed_) closed_ = ReadTookTooLong();
  }

  // Of a ready lane: takes a message. nullopt: it has no slices, or there is none and all have
  // come.
  absl::StatusOr<std::optional<TakenFrame>> Take() {
    grpc::ByteBuffer message;
    {
      MutexLock lock(&events_->mutex);
      if (queue_.empty()) {
        if (progress_.complete()) return std::nullopt;
        return closed_->ok() ? absl::UnavailableError("the server ended the read early") : *closed_;
      }
      message.Swap(&queue_.front());
      queue_.pop_front();
      queued_ -= message.Length();
    }
    stream_->Resume();
    SHARDSTEP_ASSIGN_OR_RETURN(ReceivedFrame received, ReceivedFrame::FromBuffer(message));
    SHARDSTEP_ASSIGN_OR_RETURN(FrameView frame, received.Decode());
    SHARDSTEP_RETURN_IF_ERROR(progress_.Take(frame));
    if (frame.header.kind_case() != v1::FrameHeader::kSlices) return std::nullopt;
    return TakenFrame{server_rank_, std::move(received), std::move(frame)};
  }

  // All has come and the call is over.
  bool done() const {
    MutexLock lock(&events_->mutex);
    return progress_.complete() && queue_.empty() && closed_.has_value();
  }

 private:
  void OnSent() override {}

  void OnReceived(const grpc::ByteBuffer& message) override {
    {
      MutexLock lock(&events_->mutex);
      queued_ += message.Length();
      queue_.push_back(message);
    }
    // Not under the lock, which the thread that wakes takes first. What it may end waits for us: a
    // stream's destructor blocks while it calls its listener.
    events_->changed.NotifyAll();
  }

  bool WantsMore() override {
    MutexLock lock(&events_->mutex);
    return queued_ < kMaxQueuedReadBytes;
  }

  void OnClosed(const absl::Status& status) override {
    {
      MutexLock lock(&events_->mutex);
      closed_ = status;
    }
    events_->changed.NotifyAll();
  }

  Events* const events_;
  const int server_rank_;
  ReadProgress progress_;  // of the taking thread

  std::deque<grpc::ByteBuffer> queue_ ABSL_GUARDED_BY(events_->mutex);
  size_t queued_ ABSL_GUARDED_BY(events_->mutex) = 0;
  std::optional<absl::Status> closed_ ABSL_GUARDED_BY(events_->mutex);

  // Last: its events use the members above.
  std::unique_ptr<ByteStream> stream_;
};

ReadLanes::ReadLanes(Connection* connection, v1::ReadStateRequest request,
                     const v1::Snapshot& snapshot, const std::set<int>& servers,
                     const RetryPolicy& policy, absl::Time deadline)
    : connection_(connection), request_(std::move(request)), retry_(policy, deadline) {
  for (int server_rank : servers) {
    lanes_.push_back(std::make_unique<Lane>(&events_, server_rank, snapshot));
    lanes_.back()->Start(connection_, request_);
  }
}

ReadLanes::~ReadLanes() = default;

absl::StatusOr<std::optional<TakenFrame>> ReadLanes::Next() {
  while (Lane* const lane = Await()) {
    // Also where frames come faster than they are taken, and none is ever waited for.
    absl::StatusOr<std::optional<TakenFrame>> taken =
        retry_.Over() ? ReadTookTooLong() : lane->Take();
    if (!taken.ok()) {
      SHARDSTEP_RETURN_IF_ERROR(Restart(lane, taken.status()));
      continue;
    }
    if (taken->has_value()) return taken;
    if (lane->done()) lanes_.erase(lanes_.begin() + turn_);
  }
  return std::nullopt;
}

ReadLanes::Lane* ReadLanes::Await() {
  MutexLock lock(&events_.mutex);
  while (!lanes_.empty()) {
    for (size_t i = 0; i < lanes_.size(); ++i) {
      // The next server's turn, so that all are read at the same pace.
      turn_ = (turn_ + 1) % lanes_.size();
      Lane* const lane = lanes_[turn_].get();
      lane->AssertLocked();
      if (lane->ready()) return lane;
    }
    if (!events_.changed.WaitFor(&events_.mutex, retry_.AttemptTimeout(absl::InfiniteDuration()))) {
      lanes_.front()->AssertLocked();
      lanes_.front()->TimeOut();
    }
  }
  return nullptr;
}

absl::Status ReadLanes::Restart(Lane* lane, const absl::Status& broken) {
  if (!retry_.Again(broken)) {
    return retry_.Explain(connection_->ServerName(lane->server_rank()), broken);
  }
  lane->Start(connection_, request_);
  return absl::OkStatus();
}

}  // namespace shardstep::internal
