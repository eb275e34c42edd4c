// The errors that coordinator and shard host both give, each in one place: words, code, reason.
#ifndef SHARDSTEP_SERVER_ERRORS_H_
#define SHARDSTEP_SERVER_ERRORS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "shardstep/v1/common.pb.h"

namespace shardstep {

// What a server knows of an optimizer; its facts go into every error about it.
struct OptimizerFacts {
  std::string name;
  uint64_t version = 0;
  uint64_t lineage = 0;
  uint64_t incarnation = 0;
  std::string plan_id;
  std::string last_checkpoint;  // its id; empty = none that is known
};

// NOT_FOUND NO_OPTIMIZER, with the nearest of `candidates`.
absl::Status NoSuchOptimizer(absl::string_view name, const std::vector<std::string>& candidates);

// FAILED_PRECONDITION SHARDS_LOST: `server` restarted (or failed) when the optimizer was at
// facts.version. `because`: more that is known of it.
absl::Status ShardsLost(const OptimizerFacts& facts, int server, absl::string_view because = {});

// FAILED_PRECONDITION FENCED.
absl::Status Fenced(const OptimizerFacts& facts, uint64_t session, absl::string_view why);

// An error of any code and reason with the optimizer's facts.
absl::Status OptimizerError(const OptimizerFacts& facts, absl::StatusCode code, v1::Reason reason,
                            absl::string_view message);

// What the header believes against what is: INCARNATION, ROLLED_BACK or PLAN_CHANGED.
absl::Status CheckBeliefs(const v1::CallHeader& header, const OptimizerFacts& facts);

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_ERRORS_H_
