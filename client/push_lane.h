// PushLane: the pushes of one handle on their way to one server.
//
// Life of a push: Begin, Add for each tensor (frames go out at once, whatever waits while one is on
// its way is packed into the next), End, its acknowledgement, and Forget once a Step has consumed
// it. Until then the lane holds what it needs to send it again: after the stream broke, after the
// server had no memory for it, or when Repeat asks. The bytes are referred to, not copied, and sent
// again as the same frames: if they have changed, AwaitAcks refuses.
//
// Nothing is sent before there is something for this server; a push that has nothing for it ends
// with LeaveOut.
#ifndef SHARDSTEP_CLIENT_PUSH_LANE_H_
#define SHARDSTEP_CLIENT_PUSH_LANE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shardstep/client/borrow_count.h"
#include "shardstep/client/byte_stream.h"
#include "shardstep/client/connection.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/client/retry.h"
#include "shardstep/client/tensor_cut.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/v1/frame.pb.h"
#include "shardstep/wire/frame.h"

namespace shardstep::internal {

// One thread uses a lane, except for Add, End and LeaveOut, which another may call; they do nothing
// if the push was dropped meanwhile. So may Abandon, while the first calls none that blocks. Only
// AwaitAcks, Abandon, Forget and the destructor block.
class PushLane final : private StreamListener {
 public:
  // `connection` must outlive the lane.
  PushLane(Connection* connection, int server_rank, std::shared_ptr<const OptimizerIndex> index,
           const RetryPolicy& policy);
  // Blocks as Forget does.
  ~PushLane() override;

  // Opens the push `begin.header().sequence()`; all before it have ended.
  void Begin(v1::Begin begin);
  void Add(uint64_t sequence, std::vector<OutgoingSlice> slices);
  // As v1.End's.
  void End(uint64_t sequence, std::string touched, std::string rows = {});
  // Drops the open push, to which nothing was added.
  void LeaveOut(uint64_t sequence);
  // Drops the open push, as if it had never begun: its sequence may be used again.
  void Abandon(uint64_t sequence);

  // Pushes that are sent again go under this index's plan.
  void Adopt(std::shared_ptr<const OptimizerIndex> index);

  // Blocks until the server has acknowledged every push up to `last`. FAILED_PRECONDITION: a
  // gradient's bytes have changed since they were first sent.
  absl::Status AwaitAcks(uint64_t last, absl::Time deadline);
  // The server lacks these pushes: they are to be sent again.
  void Repeat(uint64_t first, uint64_t last);
  // Drops the pushes below `first_live` and blocks until nothing refers to their memory: at once,
  // unless the server does not take what was sent; then until its connection is given up.
  void Forget(uint64_t first_live);

 private:
  struct Push {
    v1::Begin begin;
    std::vector<OutgoingFrame> frames;
    std::deque<OutgoingSlice> waiting;   // not in a frame yet
    std::optional<std::string> touched;  // set by End
    std::string rows;                    // so too
    std::shared_ptr<BorrowCount> borrowed = std::make_shared<BorrowCount>();

    // Of the current attempt to send it.
    bool begun = false;
    size_t next_frame = 0;
    FrameDigest digest;
    bool end_sent = false;
    std::optional<absl::Status> ack;

    // There is something to send of it now.
    bool HasUnsent() const {
      return !end_sent && (touched || next_frame < frames.size() || !waiting.empty());
    }
    void Restart();
  };

  void OnSent() override;
  void OnReceived(const grpc::ByteBuffer& message) override;
  void OnClosed(const absl::Status& status) override;

  // The push, if it is open.
  Push* FindOpen(uint64_t sequence) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Opens the stream if there is none or it broke.
  void EnsureOpen();
  void CloseStream();
  // Sends the next message unless one is on its way.
  void Pump();
  // Of `push`, which has something to send; none if its bytes have changed.
  std::optional<grpc::ByteBuffer> NextMessage(Push* push) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The push that is being sent, else the first that is to be; null: there is nothing to send now.
  Push* NextPush() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  grpc::ByteBuffer EncodeFrame(Push* push) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // How waiting for the pushes up to `last` ends, once it does.
  std::optional<absl::Status> Outcome(uint64_t last) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether somebody waits for what is there by now: only then is it worth waking him.
  bool Over() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status AwaitOutcome(uint64_t last, const Retry& retry);
  void Acknowledge(Push* push, absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RestartFailed(uint64_t last);
  void Release(std::vector<Push> pushes);

  Connection* const connection_;
  const int server_rank_;
  const RetryPolicy policy_;

  Mutex mutex_;
  std::shared_ptr<const OptimizerIndex> index_ ABSL_GUARDED_BY(mutex_);
  CondVar changed_;
  std::optional<uint64_t> awaited_ ABSL_GUARDED_BY(mutex_);  // by AwaitOutcome
  // Made and destroyed outside the lock, by one thread at a time.
  std::unique_ptr<ByteStream> stream_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> closed_ ABSL_GUARDED_BY(mutex_);
  bool sending_ ABSL_GUARDED_BY(mutex_) = false;
  int senders_ ABSL_GUARDED_BY(mutex_) = 0;                  // threads that are calling the stream
  CondVar unused_;                                           // senders_ is 0
  std::map<uint64_t, Push> pushes_ ABSL_GUARDED_BY(mutex_);  // by sequence
  absl::Status refused_ ABSL_GUARDED_BY(mutex_);             // bytes changed
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_PUSH_LANE_H_
