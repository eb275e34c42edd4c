// CallbackTextbookClient: one direction of one stream with gRPC's callback API. Its callbacks write
// and read; the thread that runs it only gives them one round after the other.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_CALLBACK_CLIENT_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_CALLBACK_CLIENT_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/bench/reference/rounds.h"
#include "shardstep/tests/bench/reference/textbook_sides.h"
#include "shardstep/wire/status.h"

namespace shardstep {

// For one call of Run, which blocks; the call's deadline bounds it. Side is TextbookPush or
// TextbookPull. Refers to the stream.
template <class Side>
class CallbackTextbookClient final
    : private grpc::ClientBidiReactor<typename Side::Out, typename Side::In> {
 public:
  explicit CallbackTextbookClient(const TextbookStream& stream) : stream_(stream), side_(stream) {}

  absl::Status Run(Rounds* rounds) {
    context_.set_deadline(absl::ToChronoTime(rounds->give_up()));
    Side::Open(stream_.stub, &context_, this);
    // Writes are started outside callbacks too.
    this->AddHold();
    this->StartRead(&in_);
    this->StartCall();
    absl::Status fed = Feed(rounds);
    if (fed.ok()) {
      this->StartWritesDone();
    } else {
      context_.TryCancel();
    }
    this->RemoveHold();
    MutexLock lock(&mutex_);
    while (!done_) changed_.Wait(&mutex_);
    SHARDSTEP_RETURN_IF_ERROR(read_);
    // It says why the stream broke, unless it is our own cancellation.
    if (!end_.ok() && (fed.ok() || !absl::IsCancelled(end_))) return end_;
    return fed;
  }

 private:
  absl::Status Feed(Rounds* rounds) {
    const auto tensors = static_cast<int64_t>(stream_.tensors.size());
    for (int64_t round = 0;; ++round) {
      // Without lockstep a round lies ready while the one before is sent.
      SHARDSTEP_RETURN_IF_ERROR(rounds->lockstep() ? AwaitIdle() : AwaitQueued(tensors - 1));
      SHARDSTEP_ASSIGN_OR_RETURN(const bool more, rounds->Begin(round));
      if (!more) return AwaitIdle();
      {
        MutexLock lock(&mutex_);
        queued_ += tensors;
      }
      WriteNext();
    }
  }

  absl::Status AwaitIdle() {
    MutexLock lock(&mutex_);
    while (!Idle() && !broken_) changed_.Wait(&mutex_);
    return BrokenStatus();
  }

  absl::Status AwaitQueued(int64_t most) {
    MutexLock lock(&mutex_);
    while (queued_ > most && !broken_) changed_.Wait(&mutex_);
    return BrokenStatus();
  }

  absl::Status BrokenStatus() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!broken_) return absl::OkStatus();
    return absl::UnavailableError("the server has ended the stream");
  }

  bool Idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return queued_ == 0 && in_flight_ == 0;
  }

  // The next message if none is under way and the window is open.
  void WriteNext() {
    {
      MutexLock lock(&mutex_);
      if (writing_ || broken_) return;
      if (offset_ == stream_.bytes) {
        if (queued_ == 0 || in_flight_ >= stream_.window) return;
        --queued_;
        ++in_flight_;
        next_ = (next_ + 1) % stream_.tensors.size();
        offset_ = 0;
        if (queued_ + 1 == static_cast<int64_t>(stream_.tensors.size())) changed_.NotifyAll();
      }
      writing_ = true;
    }
    // Whoever set writing_ has them for itself.
    offset_ = side_.Fill(stream_.tensors[next_], offset_, &out_);
    this->StartWrite(&out_);
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(&mutex_);
      writing_ = false;
    }
    if (!ok) return Break(absl::OkStatus());
    WriteNext();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return Break(absl::OkStatus());
    const absl::StatusOr<int> tensors = side_.Take(in_);
    if (!tensors.ok()) {
      context_.TryCancel();
      return Break(tensors.status());
    }
    {
      MutexLock lock(&mutex_);
      in_flight_ -= *tensors;
      if (Idle()) changed_.NotifyAll();
    }
    this->StartRead(&in_);
    WriteNext();
  }

  void OnDone(const grpc::Status& status) override {
    MutexLock lock(&mutex_);
    end_ = FromGrpcStatus(status);
    done_ = true;
    changed_.NotifyAll();
  }

  void Break(const absl::Status& read) {
    MutexLock lock(&mutex_);
    read_.Update(read);
    broken_ = true;
    changed_.NotifyAll();
  }

  const TextbookStream& stream_;
  const Side side_;
  grpc::ClientContext context_;
  typename Side::Out out_;
  typename Side::In in_;

  size_t next_ = stream_.tensors.size() - 1;  // place of the tensor that is being written
  int64_t offset_ = stream_.bytes;            // of what is still to be written of it

  Mutex mutex_;
  CondVar changed_;
  int64_t queued_ ABSL_GUARDED_BY(mutex_) = 0;     // tensors to begin
  int64_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;  // begun and not completed
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status read_ ABSL_GUARDED_BY(mutex_);
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_CALLBACK_CLIENT_H_
