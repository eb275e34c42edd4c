// The subjects of the comparison by name, each run in a child process of its own: so each has the
// allocator that its users would have, and none inherits what another left in memory.
#ifndef SHARDSTEP_TESTS_BENCH_SUBJECTS_H_
#define SHARDSTEP_TESTS_BENCH_SUBJECTS_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/tests/bench/reference/transfer.h"

namespace shardstep {

struct SubjectRun {
  // "shardstep"; "raw TCP", "textbook sync", "textbook callback", whose pushes are received and
  // nothing more; or these with " SGD" behind: as they arrive the tensors are stepped.
  std::string subject;
  TransferWorkload workload;
  // Of each direction. Memory is mapped, and connections find their windows, in the warm-up.
  absl::Duration warm_up = absl::Milliseconds(300);
  absl::Duration duration = absl::Seconds(3);
  // What no bar is about is left out.
  bool bars_only = false;
  // Before the child's command: "LD_PRELOAD=...".
  std::string environment;
  // Only this direction; empty: all.
  std::string direction;
};

// The child's side: runs the subject here, compares its values, and prints a line for each
// direction: "pull 123456.7", tensors per second. Without " SGD" these are "push" and "pull", with
// it "push+SGD"; unless for bars only, raw TCP with it and shardstep have "push+pull", too.
absl::Status PrintSubject(const SubjectRun& run);

// The parent's side: runs `program` (shardstep_bench) as such a child. Blocks; returns what it
// printed.
absl::StatusOr<std::map<std::string, double>> RunSubject(const std::string& program,
                                                         const SubjectRun& run);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_SUBJECTS_H_
