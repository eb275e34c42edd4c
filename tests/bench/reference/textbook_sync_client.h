// SyncTextbookClient: one direction of one stream with gRPC's synchronous API, as its introduction
// does it: one thread writes, another reads.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_SYNC_CLIENT_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_SYNC_CLIENT_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/bench/reference/rounds.h"
#include "shardstep/tests/bench/reference/textbook_sides.h"
#include "shardstep/wire/status.h"

namespace shardstep {

// The tensors in flight. Thread-safe; Acquire and AwaitEmpty block until Release or Break.
class TransferWindow {
 public:
  explicit TransferWindow(int64_t size) : size_(size) {}

  // One more; blocks while there are `size`. False: broken.
  bool Acquire() {
    MutexLock lock(&mutex_);
    while (in_flight_ >= size_ && !broken_) changed_.Wait(&mutex_);
    ++in_flight_;
    return !broken_;
  }
  bool AwaitEmpty() {
    MutexLock lock(&mutex_);
    while (in_flight_ > 0 && !broken_) changed_.Wait(&mutex_);
    return !broken_;
  }
  void Release(int64_t tensors) {
    MutexLock lock(&mutex_);
    in_flight_ -= tensors;
    changed_.NotifyAll();
  }
  // Nothing more will be released.
  void Break() {
    MutexLock lock(&mutex_);
    broken_ = true;
    changed_.NotifyAll();
  }

 private:
  const int64_t size_;
  Mutex mutex_;
  CondVar changed_;
  int64_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
};

// For one call of Run, which blocks; the call's deadline bounds it. Side is TextbookPush or
// TextbookPull. Refers to the stream.
template <class Side>
class SyncTextbookClient {
 public:
  explicit SyncTextbookClient(const TextbookStream& stream)
      : stream_(stream), side_(stream), window_(stream.window) {}

  absl::Status Run(Rounds* rounds) {
    context_.set_deadline(absl::ToChronoTime(rounds->give_up()));
    call_ = Side::Open(stream_.stub, &context_);
    std::thread reader([this] { Read(); });
    absl::Status written = Write(rounds);
    if (written.ok()) {
      call_->WritesDone();
    } else {
      context_.TryCancel();
    }
    reader.join();
    absl::Status end = FromGrpcStatus(call_->Finish());
    SHARDSTEP_RETURN_IF_ERROR(read_);
    // It says why a message could not be written, unless it is our own cancellation.
    if (!end.ok() && (written.ok() || !absl::IsCancelled(end))) return end;
    return written;
  }

 private:
  void Read() {
    typename Side::In message;
    while (read_.ok() && call_->Read(&message)) {
      const absl::StatusOr<int> tensors = side_.Take(message);
      read_ = tensors.status();
      if (read_.ok()) window_.Release(*tensors);
    }
    if (!read_.ok()) context_.TryCancel();
    window_.Break();
  }

  absl::Status Write(Rounds* rounds) {
    typename Side::Out message;
    for (int64_t round = 0;; ++round) {
      if (rounds->lockstep() && !window_.AwaitEmpty()) return Broken();
      SHARDSTEP_ASSIGN_OR_RETURN(const bool more, rounds->Begin(round));
      if (!more) return window_.AwaitEmpty() ? absl::OkStatus() : Broken();
      for (const int tensor : stream_.tensors) {
        if (!window_.Acquire()) return Broken();
        for (int64_t at = 0; at < stream_.bytes;) {
          at = side_.Fill(tensor, at, &message);
          if (!call_->Write(message)) return Broken();
        }
      }
    }
  }

  static absl::Status Broken() { return absl::UnavailableError("the server has ended the stream"); }

  const TextbookStream& stream_;
  const Side side_;
  TransferWindow window_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<typename Side::Out, typename Side::In>> call_;
  absl::Status read_;  // the reader's, and read when it has ended
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_SYNC_CLIENT_H_
