#include "shardstep/client/state_write.h"

#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "shardstep/client/borrow_count.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/v1/shards.pb.h"
#include "shardstep/wire/byte_buffer.h"
#include "shardstep/wire/frame.h"

namespace shardstep::internal {
namespace {

// One attempt at one server.
class StateWrite final : private StreamListener {
 public:
  // `slices` must outlive the write.
  StateWrite(Connection* connection, int server_rank, const v1::WriteBegin& begin,
             const std::vector<OutgoingSlice>& slices, absl::Time deadline)
      : waiting_(slices.begin(), slices.end()),
        stream_(connection->StartWrite(server_rank, deadline, this)) {
    v1::FrameHeader header;
    *header.mutable_write_begin() = begin;
    SendBare(header);
  }
  ~StateWrite() override {
    stream_.reset();
    borrowed_->AwaitZero(absl::InfiniteDuration());
  }

  // Blocks until the server has answered or the call broke.
  absl::Status Await() {
    MutexLock lock(&mutex_);
    while (!closed_) changed_.Wait(&mutex_);
    if (closed_->ok() && !answered_) return absl::UnavailableError("the server ended the write");
    return *closed_;
  }

 private:
  // Comes after a Send, so stream_ is there.
  void OnSent() override {
    if (ended_) {
      stream_->CloseSending();
      return;
    }
    if (!waiting_.empty()) {
      SendFrame();
      return;
    }
    ended_ = true;
    v1::FrameHeader header;
    header.mutable_end()->set_frames(frames_);
    header.mutable_end()->set_digest(digest_.value());
    SendBare(header);
  }

  void OnReceived(const grpc::ByteBuffer& /*message*/) override {
    MutexLock lock(&mutex_);
    answered_ = true;
  }

  void OnClosed(const absl::Status& status) override {
    MutexLock lock(&mutex_);
    closed_ = status;
    changed_.NotifyAll();
  }

  void SendFrame() {
    const OutgoingFrame frame = TakeFrame(&waiting_);
    const std::vector<absl::string_view> payload = PayloadOf(frame);
    const FramePrefix prefix = EncodeFramePrefix(HeaderOf(frame), payload);
    digest_.Add(prefix.crc32c);
    ++frames_;
    borrowed_->Add();
    stream_->Send(MakeFrameBuffer(prefix, payload, [borrowed = borrowed_] { borrowed->Remove(); }));
  }

  void SendBare(const v1::FrameHeader& header) {
    stream_->Send(MakeFrameBuffer(EncodeFramePrefix(header, {}), {}, [] {}));
  }

  // Used by one Send after the other.
  std::deque<OutgoingSlice> waiting_;
  FrameDigest digest_;
  uint64_t frames_ = 0;
  bool ended_ = false;
  const std::shared_ptr<BorrowCount> borrowed_ = std::make_shared<BorrowCount>();

  Mutex mutex_;
  CondVar changed_;
  bool answered_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> closed_ ABSL_GUARDED_BY(mutex_);

  // Last: its events use the members above.
  std::unique_ptr<ByteStream> stream_;
};

}  // namespace

absl::Status WriteStateToAll(Connection* connection, const v1::WriteBegin& begin,
                             const std::vector<std::vector<OutgoingSlice>>& slices,
                             const RetryPolicy& policy, absl::Time deadline) {
  Retry retry(policy, deadline);
  std::vector<bool> written(slices.size(), false);
  while (true) {
    std::vector<std::unique_ptr<StateWrite>> writes(slices.size());
    for (size_t rank = 0; rank < slices.size(); ++rank) {
      if (written[rank]) continue;
      writes[rank] = std::make_unique<StateWrite>(connection, static_cast<int>(rank), begin,
                                                  slices[rank], deadline);
    }
    absl::Status failed;
    int failed_rank = 0;
    for (size_t rank = 0; rank < slices.size(); ++rank) {
      if (written[rank]) continue;
      const absl::Status status = writes[rank]->Await();
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
