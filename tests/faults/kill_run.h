// KillRun: a LedgerFleet whose servers or trainers are killed (SIGKILL) at random moments while
// they step, and started again at once.
#ifndef SHARDSTEP_TESTS_FAULTS_KILL_RUN_H_
#define SHARDSTEP_TESTS_FAULTS_KILL_RUN_H_

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shardstep/tests/faults/ledger_fleet.h"

namespace shardstep {

struct KillRunOptions {
  int kills = 20;
  uint64_t seed = 1;
  // Of trainers instead of servers.
  bool trainers = false;
  // Of a model whose optimizer needs sums over all servers.
  bool coupled = false;
};

struct KillReport {
  int kills = 0;
  std::vector<int> kills_of;           // by victim's rank
  int kills_of_all = 0;                // of these, all at once
  std::map<std::string, int> moments;  // where in a step they fell
  // From when the victims were there again until every trainer had a further step acknowledged.
  std::vector<absl::Duration> resumed;
  LedgerVerdict verdict;
};

// Used by one thread.
class KillRun {
 public:
  explicit KillRun(const KillRunOptions& options);

  // Blocks until all kills have been made and the trainers have ended. An error: the run did not
  // get that far.
  absl::Status Run();
  const KillReport& report() const { return report_; }

 private:
  absl::Status Kill();
  // Until all trainers have called Step, or a second.
  void AwaitAllStepping();
  absl::Status KillServers(const std::vector<int>& victims);
  absl::Status KillTrainers(const std::vector<int>& victims);
  // Who is killed next: each in its turn, one time in ten all at once.
  std::vector<int> Victims();
  // Of 0 to `below` - 1.
  int Draw(int below) { return static_cast<int>(random_() % below); }

  const KillRunOptions options_;
  std::mt19937_64 random_;
  LedgerFleet fleet_;
  std::vector<int> turns_;  // victims to come
  absl::Time up_;           // when the last victims were
  KillReport report_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_FAULTS_KILL_RUN_H_
