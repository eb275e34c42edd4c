// Proposing a change to the coordinator until it is done: what create, add_param_group, load,
// restore and delete have in common.
#ifndef SHARDSTEP_CLIENT_CHANGE_PROPOSAL_H_
#define SHARDSTEP_CLIENT_CHANGE_PROPOSAL_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/client/client_core.h"
#include "shardstep/client/state_dict.h"
#include "shardstep/v1/coordinator.pb.h"

namespace shardstep::internal {

struct Change {
  // Begins the message of a timeout: `create "digits"`.
  std::string what;
  // Puts the change, or its page of this number, into the request.
  std::function<absl::Status(uint32_t page, v1::ProposeRequest*)> fill;
  // Writes the values that a staging asks for; null: there are none to write.
  std::function<absl::Status(const v1::ProposeReply::Staging&)> stage;
  // Of what servers read or write before the change is done.
  Progress progress;
};

// Blocks until the change is done, is refused, or `deadline`: DEADLINE_EXCEEDED says who is waited
// for. `header` as the change wants it.
absl::StatusOr<v1::ProposeReply::Done> ProposeChange(const ClientCore& client,
                                                     const v1::CallHeader& header,
                                                     const Change& change, absl::Time deadline);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_CHANGE_PROPOSAL_H_
