// LedgerFleet: a fleet of three server processes, processes of tests/faults:ledger_trainer that
// train the ledger model on it in synchronous steps, and what became of the run in the end.
//
//   LedgerFleet run(options);
//   ASSERT_OK(run.Start());
//   ... faults, and AwaitBeyond(...) ...
//   ASSERT_OK_AND_ASSIGN(const LedgerVerdict verdict, run.End());
#ifndef SHARDSTEP_TESTS_FAULTS_LEDGER_FLEET_H_
#define SHARDSTEP_TESTS_FAULTS_LEDGER_FLEET_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/tests/child_process.h"
#include "shardstep/tests/faults/trainer_progress.h"
#include "shardstep/tests/mini_fleet.h"

namespace shardstep {

struct LedgerFleetOptions {
  int trainers = 2;
  // The optimizer needs sums over all servers.
  bool coupled = false;
  MiniFleetOptions fleet;  // of three servers

  LedgerFleetOptions() {
    fleet.durability = "wal";
    // So small that bases are written and logs are cut all the time.
    fleet.log_bytes = 1 << 20;
  }
};

struct LedgerVerdict {
  uint64_t version = 0;
  uint64_t lost = 0;        // steps or contributions that were acknowledged and are not there
  uint64_t duplicated = 0;  // contributions that count more than once
  uint64_t torn = 0;        // pulls and rows of the ledger that are of several versions
  bool identical = false;   // every parameter has the bits of a run in which nothing happened
  uint64_t rolled_back = 0;
  int64_t overdue_ms = 0;  // of the slowest call, behind its deadline

  bool good() const { return lost == 0 && duplicated == 0 && torn == 0 && identical; }
  // "lost=0 duplicated=0 torn=0 identical=yes".
  std::string ToString() const;
};

// Used by one thread. Methods block, for a bounded time.
class LedgerFleet {
 public:
  explicit LedgerFleet(const LedgerFleetOptions& options);

  // All servers and trainers, and one step.
  absl::Status Start();

  MiniFleet& servers() { return *fleet_; }
  ChildProcess& trainer(int rank) { return *trainers_[rank]; }
  const TrainerProgress& progress(int rank) const { return *progress_[rank]; }
  absl::Status StartTrainer(int rank);

  // The last version that a trainer had acknowledged.
  uint64_t MaxAcknowledged() const;
  // Waits until every trainer has a step beyond `version` acknowledged. An error has the ends of
  // all logs.
  absl::Status AwaitBeyond(uint64_t version, absl::Duration patience = absl::Minutes(1));
  // Lets the trainers end together, at a version from `version` on, and compares what the servers
  // then have with what the run must have come to.
  absl::StatusOr<LedgerVerdict> End(uint64_t version = 0);

 private:
  std::string Logs() const;

  const LedgerFleetOptions options_;
  const std::unique_ptr<MiniFleet> fleet_;
  std::vector<SharedProgress> progress_;                 // by trainer rank
  std::vector<std::unique_ptr<ChildProcess>> trainers_;  // by trainer rank
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_FAULTS_LEDGER_FLEET_H_
