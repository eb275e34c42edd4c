// Writing values to all servers of a staging.
#ifndef SHARDSTEP_CLIENT_STATE_WRITE_H_
#define SHARDSTEP_CLIENT_STATE_WRITE_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shardstep/client/connection.h"
#include "shardstep/client/retry.h"
#include "shardstep/client/tensor_cut.h"
#include "shardstep/v1/frame.pb.h"

namespace shardstep::internal {

// Sends slices[r] to server rank r, to all servers at the same time, each behind `begin`. Blocks
// until every server has taken its own, an error is final, or `deadline`. A write that broke off is
// repeated from its beginning. When this returns nothing refers to the slices' memory.
absl::Status WriteStateToAll(Connection* connection, const v1::WriteBegin& begin,
                             const std::vector<std::vector<OutgoingSlice>>& slices,
                             const RetryPolicy& policy, absl::Time deadline);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_STATE_WRITE_H_
