// BidiStream: the server's end of a long-lived stream in both directions, on gRPC's callback API.
//
// It owns what every such stream needs: one read at a time, a queue of answers written one at a
// time, and an end that comes exactly once and only when nobody can call into gRPC any more.
#ifndef SHARDSTEP_SERVER_RPC_BIDI_STREAM_H_
#define SHARDSTEP_SERVER_RPC_BIDI_STREAM_H_

#include <grpcpp/support/server_callback.h>

#include <cstddef>
#include <deque>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "shardstep/server/rpc/open_streams.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/wire/status.h"

namespace shardstep {

// Thread-safe. Made by std::make_shared and given to an OpenStreams, which owns it until gRPC has
// done with it; then Start(). Continuations of the core hold it by shared_ptr or weak_ptr: what
// they send to an ended stream is dropped.
template <typename Request, typename Response>
class BidiStream : public grpc::ServerBidiReactor<Request, Response>, public OpenStream {
 public:
  // `streams` must outlive it.
  explicit BidiStream(OpenStreams* streams) : streams_(streams) {}

  void Start() { ReadNext(); }

  // Nothing that is sent from now on goes out.
  bool closed() {
    MutexLock lock(&mutex_);
    return closing_.has_value();
  }

  void Close(const absl::Status& status) override {
    bool finish;
    {
      MutexLock lock(&mutex_);
      if (!closing_.has_value()) closing_ = status;
      finish = MustFinish();
    }
    if (finish) Finish();
  }

 protected:
  // A message arrived. Leads to exactly one ReadNext(), now or later, from any thread, also after
  // Close; until then no other comes and the stream does not end.
  virtual void OnMessage(Request& message) = 0;

  // What to write next of the answers that wait, at least one. Called under the lock.
  virtual Response TakeNext(std::deque<Response>* queue) {
    Response first = std::move(queue->front());
    queue->pop_front();
    return first;
  }

  // Reads the next message, as soon as the answers queued are few: a peer that does not read is not
  // read from.
  void ReadNext() {
    bool read;
    {
      MutexLock lock(&mutex_);
      if (!closing_.has_value() && queue_.size() >= kMaxQueued) {
        read_waits_ = true;
        return;
      }
      read = !closing_.has_value();
    }
    if (read) this->StartRead(&incoming_);
    Release();
  }

  void Send(Response response) {
    Queue([&response](std::deque<Response>* queue) { queue->push_back(std::move(response)); });
  }
  void SendAll(std::vector<Response> responses) {
    Queue([&responses](std::deque<Response>* queue) {
      std::move(responses.begin(), responses.end(), std::back_inserter(*queue));
    });
  }

 private:
  static constexpr size_t kMaxQueued = 64;

  template <typename Fill>
  void Queue(Fill&& fill) {
    {
      MutexLock lock(&mutex_);
      if (closing_.has_value()) return;
      fill(&queue_);
      if (writing_ || queue_.empty()) return;
      TakeFromQueue();
    }
    this->StartWrite(&outgoing_);
  }

  void OnReadDone(bool ok) final {
    if (!ok) return Close(absl::OkStatus());
    {
      MutexLock lock(&mutex_);
      ++holds_;
    }
    OnMessage(incoming_);
  }

  void OnWriteDone(bool ok) final {
    bool again = false;
    bool resume = false;
    {
      MutexLock lock(&mutex_);
      if (!ok) {
        queue_.clear();
        if (!closing_.has_value()) closing_ = absl::CancelledError("the connection broke");
      }
      again = !queue_.empty();
      writing_ = false;
      if (again) {
        --holds_;  // TakeFromQueue holds again
        TakeFromQueue();
      }
      resume = std::exchange(read_waits_, false);
    }
    if (again) {
      this->StartWrite(&outgoing_);
    } else {
      Release();
    }
    if (resume) ReadNext();
  }

  void OnCancel() final { Close(absl::CancelledError("the call was cancelled")); }

  void OnDone() final { streams_->Remove(this); }

  void TakeFromQueue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    outgoing_ = TakeNext(&queue_);
    writing_ = true;
    ++holds_;
  }

  void Release() {
    bool finish;
    {
      MutexLock lock(&mutex_);
      --holds_;
      finish = MustFinish();
    }
    if (finish) Finish();
  }

  // True once: the caller then calls Finish().
  bool MustFinish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!closing_.has_value() || holds_ > 0 || finished_) return false;
    finished_ = true;
    status_ = ToGrpcStatus(*closing_);
    return true;
  }
  void Finish() { grpc::ServerBidiReactor<Request, Response>::Finish(status_); }

  OpenStreams* const streams_;
  Request incoming_;
  Response outgoing_;    // of the one write under way
  grpc::Status status_;  // written once, before Finish

  Mutex mutex_;
  std::deque<Response> queue_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool read_waits_ ABSL_GUARDED_BY(mutex_) = false;
  // Who may still call into gRPC: a write under way, and whoever has to call ReadNext (at first:
  // Start).
  int holds_ ABSL_GUARDED_BY(mutex_) = 1;
  std::optional<absl::Status> closing_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_BIDI_STREAM_H_
