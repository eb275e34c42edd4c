// Rounds: how several threads transfer whole rounds of tensors for a given time.
//
//   SHARDSTEP_ASSIGN_OR_RETURN(
//       const RoundsResult result, RunRounds(absl::Seconds(1), /*lockstep=*/false, {push, push}));
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_ROUNDS_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_ROUNDS_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/sharding/mutex.h"

namespace shardstep {

// For how long a peer or another thread may be silent before a transfer fails.
inline constexpr absl::Duration kTransferPatience = absl::Seconds(30);

// Decides for all parts of a transfer alike whether there is another round, so that all run equally
// many. Thread-safe; owns nothing.
class Rounds {
 public:
  // The first round is always run; none begins after `duration`. In lockstep no part begins a round
  // before all `parts` have ended the one before.
  Rounds(absl::Duration duration, bool lockstep, int parts);
  Rounds(const Rounds&) = delete;
  Rounds& operator=(const Rounds&) = delete;

  // Whether the calling part is to run `round` (0, 1, ...). In lockstep blocks, until give_up() at
  // most, and is called with nothing in flight; else never blocks. CANCELLED: a part has failed.
  absl::StatusOr<bool> Begin(int64_t round);
  // Ends the transfer for all parts; the first error counts.
  void Fail(const absl::Status& error);

  bool lockstep() const { return lockstep_; }
  // When whatever still waits is to fail.
  absl::Time give_up() const { return end_ + kTransferPatience; }
  // Rounds begun.
  int64_t count() const;
  absl::Status status() const;

 private:
  const absl::Time end_;
  const bool lockstep_;
  const int parts_;

  mutable Mutex mutex_;
  CondVar decided_;
  int64_t begun_ ABSL_GUARDED_BY(mutex_) = 0;
  int asking_ ABSL_GUARDED_BY(mutex_) = 0;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

// Part of a transfer: runs the rounds that it is given, until there is no other.
using TransferPart = std::function<absl::Status(Rounds&)>;

struct RoundsResult {
  int64_t rounds = 0;
  double seconds = 0;
};

// Runs each part on a thread of its own. Blocks until all have ended.
absl::StatusOr<RoundsResult> RunRounds(absl::Duration duration, bool lockstep,
                                       const std::vector<TransferPart>& parts);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_ROUNDS_H_
