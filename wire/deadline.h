// The rule that every call has a deadline, long-lived streams excepted.
#ifndef SHARDSTEP_WIRE_DEADLINE_H_
#define SHARDSTEP_WIRE_DEADLINE_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace shardstep {

// INVALID_ARGUMENT DEADLINE_REQUIRED if `deadline` (absl::InfiniteFuture() or gRPC's own infinity
// for none) is more than kMaxDeadline after `now`. A deadline that has passed is gRPC's business.
// `call` names the call in the message.
absl::Status CheckDeadline(absl::string_view call, absl::Time deadline, absl::Time now);

}  // namespace shardstep

#endif  // SHARDSTEP_WIRE_DEADLINE_H_
