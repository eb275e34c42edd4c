// Errands: everything that a fleet does besides steps, over and over, on a thread of its own, so
// that a test that waits for a server to come by some place need not know what leads there.
#ifndef SHARDSTEP_TESTS_FAULTS_ERRANDS_H_
#define SHARDSTEP_TESTS_FAULTS_ERRANDS_H_

#include <atomic>
#include <string>
#include <thread>

#include "absl/status/status.h"

namespace shardstep {

// Creates an optimizer of its own, steps it, adds a group, reads and loads its state, writes a
// checkpoint, restores and deletes it. The destructor waits for the round under way.
class Errands {
 public:
  explicit Errands(std::string fleet_file);
  ~Errands();
  Errands(const Errands&) = delete;
  Errands& operator=(const Errands&) = delete;

  // Whole rounds so far.
  int rounds() const { return rounds_; }
  // The errand under way.
  const char* doing() const { return doing_; }
  // There are no more rounds: something failed.
  bool ended() const { return ended_; }
  // Ends after the round under way; blocks until then. The first error, which ended it before.
  absl::Status Stop();

 private:
  absl::Status Round();

  const std::string fleet_file_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> rounds_{0};
  std::atomic<const char*> doing_{""};
  std::atomic<bool> ended_{false};
  absl::Status status_;  // of the thread, until it is joined
  std::thread thread_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_FAULTS_ERRANDS_H_
