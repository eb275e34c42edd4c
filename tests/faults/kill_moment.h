// Where in a step a server was when it was killed, by what its log has.
#ifndef SHARDSTEP_TESTS_FAULTS_KILL_MOMENT_H_
#define SHARDSTEP_TESTS_FAULTS_KILL_MOMENT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace shardstep {

enum class KillMoment {
  kPush,     // nothing of the next version is in its log
  kPrepare,  // it has prepared the next version, and knows of no decision
  kCommit,   // it knows of a decision that no trainer had been told of
};

// `log_directory` is a dead server's; `acknowledged` the last version that trainers knew of when it
// died.
absl::StatusOr<KillMoment> MomentOf(const std::string& log_directory, uint64_t acknowledged);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_FAULTS_KILL_MOMENT_H_
