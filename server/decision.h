// Decide: what becomes of a change, as a pure function of what all servers answered to its Prepare.
#ifndef SHARDSTEP_SERVER_DECISION_H_
#define SHARDSTEP_SERVER_DECISION_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "shardstep/server/errors.h"
#include "shardstep/v1/definition.pb.h"
#include "shardstep/v1/peer.pb.h"

namespace shardstep {

struct Verdict {
  v1::Decision decision;
  // With ABORT: what the callers get.
  absl::Status reason;
};

// `answers` by server rank, all under one ballot. Facts about the optimizer: its definition, and
// `facts` for errors. A step aborts if a server lacks pushes (ABORTED MISSING), cannot apply it
// (its status), saw other parameters touched than another server, if its gradient is too old
// (GRADIENT_TOO_OLD) or is not finite and the policy is REFUSE (NONFINITE).
Verdict Decide(const v1::Prepare& request, const std::vector<v1::Prepared>& answers,
               const v1::OptimizerDefinition& definition, const OptimizerFacts& facts);

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_DECISION_H_
