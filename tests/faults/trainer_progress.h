// TrainerProgress: what a trainer process tells of itself, in memory that it shares with the test
// through a file. So it is known at the moment when the trainer is killed, and stays known.
#ifndef SHARDSTEP_TESTS_FAULTS_TRAINER_PROGRESS_H_
#define SHARDSTEP_TESTS_FAULTS_TRAINER_PROGRESS_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace shardstep {

// All zero at first. One trainer writes all but `stop_at`.
struct TrainerProgress {
  enum Phase : int32_t { kStarting, kPushing, kStepping, kPulling };

  std::atomic<int32_t> phase;
  // The version of the last step that was acknowledged, over all processes of this trainer.
  std::atomic<uint64_t> acknowledged;
  // The trainer ends when its optimizer has this version; 0: it goes on.
  std::atomic<uint64_t> stop_at;
  // Pulls whose ledger was not that of one version.
  std::atomic<uint64_t> torn;
  // Starts at which the fleet did not know of a step that had been acknowledged, and returns to a
  // version older than one that had been said to be durable.
  std::atomic<uint64_t> lost;
  // Returns to an older version, with durability "checkpoint".
  std::atomic<uint64_t> rolled_back;
  // How far the slowest call was behind its deadline.
  std::atomic<int64_t> overdue_ms;
};

// Unmaps it at its end; the file stays.
struct Unmap {
  void operator()(TrainerProgress* progress) const;
};
using SharedProgress = std::unique_ptr<TrainerProgress, Unmap>;

// Maps the file, made where it is missing. The system's error.
absl::StatusOr<SharedProgress> MapProgress(const std::string& path);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_FAULTS_TRAINER_PROGRESS_H_
