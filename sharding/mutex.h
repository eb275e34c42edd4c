// Mutex, MutexLock and CondVar: std::mutex and std::condition_variable with Clang's thread-safety
// annotations (ABSL_GUARDED_BY and its kin from absl/base/thread_annotations.h), which
// `--config=clang` checks as errors.
//
// Why not absl::Mutex: a packaged Abseil is a shared library that ThreadSanitizer does not see
// into, so correctly locked code would be reported as a race.
//
// Every class has at most one Mutex; nothing is called out to (callbacks, I/O, gRPC) and no large
// buffer is freed while it is held.
#ifndef SHARDSTEP_SHARDING_MUTEX_H_
#define SHARDSTEP_SHARDING_MUTEX_H_

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

namespace shardstep {

// A non-recursive mutual exclusion lock. Prefer MutexLock to Lock and Unlock.
class ABSL_LOCKABLE Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  // Blocks until this thread holds the mutex.
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mutex_.lock(); }

  // Releases the mutex, which this thread holds.
  void Unlock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }

  // Tells the static analysis, at no cost, that the mutex is held here: for lambdas that are only
  // called under it.
  void AssertHeld() const ABSL_ASSERT_EXCLUSIVE_LOCK() {}

 private:
  friend class CondVar;

  std::mutex mutex_;
};

// Holds a Mutex, which must outlive it, from construction to destruction.
class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : mutex_(*mutex) {
    mutex_.Lock();
  }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// A condition variable. Waits may return without a notification: call them in a loop that checks
// the condition. Thread-safe; the mutex passed must be the same for all concurrent waits.
class CondVar {
 public:
  CondVar() = default;
  CondVar(const CondVar&) = delete;
  CondVar& operator=(const CondVar&) = delete;

  // Releases `mutex`, blocks until notified, and holds `mutex` again on return.
  void Wait(Mutex* mutex) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    std::unique_lock<std::mutex> lock(mutex->mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }

  // As Wait, for `timeout` at most; absl::InfiniteDuration() waits without limit, a timeout of
  // zero or less returns at once. Returns false if the time ran out, true otherwise.
  bool WaitFor(Mutex* mutex, absl::Duration timeout) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    // Longer waits than this would overflow the clock's nanoseconds when added to its now().
    if (timeout > kLongestTimedWait) {
      Wait(mutex);
      return true;
    }
    std::unique_lock<std::mutex> lock(mutex->mutex_, std::adopt_lock);
    const std::cv_status status = condition_.wait_for(lock, absl::ToChronoNanoseconds(timeout));
    lock.release();
    return status == std::cv_status::no_timeout;
  }

  // Wakes every waiting thread.
  void NotifyAll() { condition_.notify_all(); }

 private:
  static constexpr absl::Duration kLongestTimedWait = absl::Hours(24 * 365);

  std::condition_variable condition_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SHARDING_MUTEX_H_
