// Whether, when and how often a call is made again. Three independent parts: how long to wait
// (Backoff), what all calls of a client together may add (RetryBudget), and one operation that puts
// them together (Retry).
#ifndef SHARDSTEP_CLIENT_RETRY_H_
#define SHARDSTEP_CLIENT_RETRY_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "shardstep/sharding/mutex.h"

namespace shardstep::internal {

// The time that deadlines are judged by. Monotonic: only differences mean something. Thread-safe.
class Timer {
 public:
  virtual ~Timer() = default;
  virtual absl::Time Now() const = 0;
  virtual void SleepFor(absl::Duration duration) = 0;

  // The process's steady clock; lives for ever.
  static Timer* Steady();
};

// Capped exponential waits with full jitter: the k-th is uniform in [0, min(longest, first * 2^k)).
class Backoff {
 public:
  // `random` gives numbers in [0, 1).
  Backoff(absl::Duration first, absl::Duration longest, std::function<double()> random)
      : limit_(first), longest_(longest), random_(std::move(random)) {}

  absl::Duration Next();

 private:
  absl::Duration limit_;
  absl::Duration longest_;
  std::function<double()> random_;
};

// Bounds what retries add to a fleet that is in trouble: one for every ten calls, and so many a
// second besides. Thread-safe.
class RetryBudget {
 public:
  explicit RetryBudget(double per_second = 5.0, double burst = 20.0)
      : per_second_(per_second), burst_(burst), tokens_(burst) {}

  // A call was made for the first time.
  void OnCall();
  // Takes one retry. Returns how long it must wait for its turn.
  absl::Duration Withdraw(absl::Time now);

 private:
  const double per_second_;
  const double burst_;
  Mutex mutex_;
  double tokens_ ABSL_GUARDED_BY(mutex_);  // below zero: retries that wait for theirs
  absl::Time refilled_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

// What retries of one client have in common. The timer and the budget must outlive every Retry made
// with it.
struct RetryPolicy {
  Timer* timer = Timer::Steady();
  RetryBudget* budget = nullptr;  // null: unlimited
  absl::Duration first_backoff = absl::Milliseconds(100);
  absl::Duration longest_backoff = absl::Seconds(2);
  // Numbers in [0, 1); called from any thread.
  std::function<double()> random = UniformRandom;

  static double UniformRandom();
};

// Whether the same call may succeed if it is made again: UNAVAILABLE, RESOURCE_EXHAUSTED, and what
// a broken transport makes of a call (DEADLINE_EXCEEDED of one attempt, CANCELLED, DATA_LOSS, a
// reset stream).
bool IsTransient(const absl::Status& status);

// The attempts of one operation, up to its deadline. Not thread-safe.
//
//   Retry retry(policy, deadline);
//   do {
//     status = Call(retry.AttemptTimeout(...));
//   } while (retry.Again(status));
//   return retry.Explain("server 1 at 127.0.0.1:7401", status);
class Retry {
 public:
  Retry(const RetryPolicy& policy, absl::Time deadline);

  // Whether the call that ended with `status` is to be made again. Sleeps first, if so: at least as
  // long as the status asks for.
  bool Again(const absl::Status& status);

  // What remains until the deadline, at most `longest`, at least a millisecond.
  absl::Duration AttemptTimeout(absl::Duration longest) const;

  absl::Time deadline() const { return deadline_; }
  bool Over() const { return policy_.timer->Now() >= deadline_; }

  // `status` unchanged unless it is transient; else "<who>: connection refused, 7 attempts in 5.0
  // s". What a transport made of the call becomes UNAVAILABLE: DEADLINE_EXCEEDED of an attempt says
  // nothing about the user's time.
  absl::Status Explain(absl::string_view who, const absl::Status& status) const;

 private:
  const RetryPolicy policy_;
  const absl::Time deadline_;
  const absl::Time started_;
  Backoff backoff_;
  int attempts_ = 0;
};

// "60.0 s", as messages give times.
std::string Seconds(absl::Duration duration);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_RETRY_H_
