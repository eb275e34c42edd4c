// Counts the messages in the transport's hands that refer to a user's memory.
#ifndef SHARDSTEP_CLIENT_BORROW_COUNT_H_
#define SHARDSTEP_CLIENT_BORROW_COUNT_H_

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "shardstep/sharding/mutex.h"

namespace shardstep::internal {

// Thread-safe.
class BorrowCount {
 public:
  void Add() {
    MutexLock lock(&mutex_);
    ++count_;
  }

  void Remove() {
    MutexLock lock(&mutex_);
    --count_;
    changed_.NotifyAll();
  }

  // Blocks until the count is zero, which the result says, or nothing was given back for `timeout`.
  bool AwaitZero(absl::Duration timeout) {
    MutexLock lock(&mutex_);
    while (count_ > 0) {
      if (!changed_.WaitFor(&mutex_, timeout)) return count_ == 0;
    }
    return true;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_BORROW_COUNT_H_
