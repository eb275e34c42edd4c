#include "shardstep/client/state_write.h"

#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "shardstep/client/borrow_count.h"
#include "shardstep/client/byte_stream.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/byte_buffer.h"
#include "shardstep/wire/frame.h"

namespace shardstep::internal {
namespace {

// Keeps the encoded header far below kMaxFrameHeaderBytes.
constexpr int kScalarsPerFrame = 4096;

struct Events {
  Mutex mutex;
  CondVar changed;
};

// One attempt at one server.
class StateWrite final : private StreamListener {
 public:
  StateWrite(Events* events, Connection* connection, int server_rank, const v1::WriteBegin& begin,
             v1::Scalars scalars, absl::Time deadline)
      : events_(events),
        scalars_(std::move(scalars)),
        stream_(connection->StartWrite(server_rank, deadline, this)) {
    v1::FrameHeader header;
    *header.mutable_write_begin() = begin;
    {
      MutexLock lock(&events_->mutex);
      sending_ = true;
    }
    stream_->Send(MakeFrameBuffer(EncodeFramePrefix(header, {}), {}, [] {}),
                  /*another_follows=*/false);
  }
  ~StateWrite() override {
    stream_.reset();
    borrowed_->AwaitZero(absl::InfiniteDuration());
  }

  void Add(std::vector<OutgoingSlice> slices) {
    {
      MutexLock lock(&events_->mutex);
      for (OutgoingSlice& slice : slices) {
        queued_ += slice.bytes;
        waiting_.push_back(std::move(slice));
      }
    }
    Pump();
  }

  void End() {
    {
      MutexLock lock(&events_->mutex);
      fed_ = true;
    }
    Pump();
  }

  // Tells the static analysis that the mutex its caller holds is this one's.
  void AssertLocked() const ABSL_ASSERT_EXCLUSIVE_LOCK(events_->mutex) {
    events_->mutex.AssertHeld();
  }

  // Bytes that wait; none, once the write is over.
  size_t queued() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(events_->mutex) {
    return closed_ ? 0 : queued_;
  }
  bool over() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(events_->mutex) { return closed_.has_value(); }
  // Of a write that is over.
  absl::Status outcome() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(events_->mutex) {
    if (closed_->ok() && !answered_) return absl::UnavailableError("the server ended the write");
    return *closed_;
  }

 private:
  void OnSent() override {
    bool wants_more;
    {
      MutexLock lock(&events_->mutex);
      sending_ = false;
      wants_more = !ended_;
    }
    // Not under the lock, which the thread that wakes takes first. What it may end waits for us: a
    // stream's destructor blocks while it calls its listener.
    if (wants_more) events_->changed.NotifyAll();
    Pump();
  }

  void OnReceived(const grpc::ByteBuffer& /*message*/) override {
    MutexLock lock(&events_->mutex);
    answered_ = true;
  }

  void OnClosed(const absl::Status& status) override {
    {
      MutexLock lock(&events_->mutex);
      closed_ = status;
    }
    events_->changed.NotifyAll();
  }

  // Sends the next message unless one is on its way.
  void Pump() {
    std::optional<grpc::ByteBuffer> message;
    {
      MutexLock lock(&events_->mutex);
      if (sending_ || closed_ || closing_) return;
      message = NextMessage();
      sending_ = message.has_value();
      closing_ = !message && ended_;
      if (!message && !closing_) return;
    }
    if (message) {
      stream_->Send(*std::move(message), /*another_follows=*/false);
    } else {
      stream_->CloseSending();
    }
  }

  std::optional<grpc::ByteBuffer> NextMessage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(events_->mutex) {
    if (!waiting_.empty()) return SlicesMessage();
    if (!fed_ || ended_) return std::nullopt;
    v1::FrameHeader header;
    if (next_scalar_ < scalars_.scalars_size()) {
      for (int i = 0; i < kScalarsPerFrame && next_scalar_ < scalars_.scalars_size(); ++i) {
        *header.mutable_scalars()->add_scalars() = scalars_.scalars(next_scalar_++);
      }
      const FramePrefix prefix = EncodeFramePrefix(header, {});
      Count(prefix);
      return MakeFrameBuffer(prefix, {}, [] {});
    }
    ended_ = true;
    header.mutable_end()->set_frames(frames_);
    header.mutable_end()->set_digest(digest_.value());
    return MakeFrameBuffer(EncodeFramePrefix(header, {}), {}, [] {});
  }

  grpc::ByteBuffer SlicesMessage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(events_->mutex) {
    // Lives until the transport has let go of the memory.
    auto frame = std::make_shared<const OutgoingFrame>(TakeFrame(&waiting_));
    for (const OutgoingSlice& slice : frame->slices) queued_ -= slice.bytes;
    const std::vector<absl::string_view> payload = PayloadOf(*frame);
    const FramePrefix prefix = EncodeFramePrefix(HeaderOf(*frame), payload);
    Count(prefix);
    borrowed_->Add();
    return MakeFrameBuffer(
        prefix, payload, [borrowed = borrowed_, frame = std::move(frame)] { borrowed->Remove(); });
  }

  void Count(const FramePrefix& prefix) ABSL_EXCLUSIVE_LOCKS_REQUIRED(events_->mutex) {
    digest_.Add(prefix.crc32c);
    ++frames_;
  }

  Events* const events_;
  const v1::Scalars scalars_;
  const std::shared_ptr<BorrowCount> borrowed_ = std::make_shared<BorrowCount>();

  std::deque<OutgoingSlice> waiting_ ABSL_GUARDED_BY(events_->mutex);
  size_t queued_ ABSL_GUARDED_BY(events_->mutex) = 0;
  int next_scalar_ ABSL_GUARDED_BY(events_->mutex) = 0;
  FrameDigest digest_ ABSL_GUARDED_BY(events_->mutex);
  uint64_t frames_ ABSL_GUARDED_BY(events_->mutex) = 0;
  bool fed_ ABSL_GUARDED_BY(events_->mutex) = false;      // no more slices come
  bool ended_ ABSL_GUARDED_BY(events_->mutex) = false;    // End was sent
  bool closing_ ABSL_GUARDED_BY(events_->mutex) = false;  // and this side closed
  bool sending_ ABSL_GUARDED_BY(events_->mutex) = false;
  bool answered_ ABSL_GUARDED_BY(events_->mutex) = false;
  std::optional<absl::Status> closed_ ABSL_GUARDED_BY(events_->mutex);

  // Last: its events use the members above.
  std::unique_ptr<ByteStream> stream_;
};

using Writes = std::vector<std::unique_ptr<StateWrite>>;  // by server rank; null: written before

// Blocks until what waits is within bounds. False: no write is left that goes on.
bool AwaitRoom(Events* events, const Writes& writes) {
  MutexLock lock(&events->mutex);
  while (true) {
    size_t queued = 0;
    bool going = false;
    for (const auto& write : writes) {
      if (write == nullptr) continue;
      write->AssertLocked();
      queued += write->queued();
      going |= !write->over();
    }
    if (!going || queued < kMaxQueuedWriteBytes) return going;
    events->changed.Wait(&events->mutex);
  }
}

absl::Status Feed(Events* events, const Writes& writes, WriteFeed* feed) {
  feed->Rewind();
  while (AwaitRoom(events, writes)) {
    std::vector<std::vector<OutgoingSlice>> slices(writes.size());
    SHARDSTEP_ASSIGN_OR_RETURN(const bool more, feed->Next(&slices));
    for (size_t rank = 0; rank < writes.size(); ++rank) {
      if (writes[rank] == nullptr) continue;
      if (!slices[rank].empty()) writes[rank]->Add(std::move(slices[rank]));
      if (!more) writes[rank]->End();
    }
    if (!more) return absl::OkStatus();
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteStateToAll(Connection* connection, const v1::WriteBegin& begin, WriteFeed* feed,
                             const RetryPolicy& policy, absl::Time deadline) {
  Retry retry(policy, deadline);
  const auto servers = static_cast<size_t>(connection->num_servers());
  std::vector<bool> written(servers, false);
  while (true) {
    Events events;
    Writes writes(servers);
    for (size_t rank = 0; rank < servers; ++rank) {
      if (written[rank]) continue;
      const int server_rank = static_cast<int>(rank);
      writes[rank] = std::make_unique<StateWrite>(&events, connection, server_rank, begin,
                                                  feed->ScalarsFor(server_rank), deadline);
    }
    SHARDSTEP_RETURN_IF_ERROR(Feed(&events, writes, feed));
    absl::Status failed;
    int failed_rank = 0;
    for (size_t rank = 0; rank < servers; ++rank) {
      if (written[rank]) continue;
      MutexLock lock(&events.mutex);
      writes[rank]->AssertLocked();
      while (!writes[rank]->over()) events.changed.Wait(&events.mutex);
      const absl::Status status = writes[rank]->outcome();
      written[rank] = status.ok();
      // A final error stands before those that may pass.
      if (!status.ok() && (failed.ok() || (IsTransient(failed) && !IsTransient(status)))) {
        failed = status;
        failed_rank = static_cast<int>(rank);
      }
    }
    writes.clear();
    if (failed.ok()) return failed;
    if (!retry.Again(failed)) return retry.Explain(connection->ServerName(failed_rank), failed);
  }
}

}  // namespace shardstep::internal
