// Writing values and state to all servers of a staging.
#ifndef SHARDSTEP_CLIENT_STATE_WRITE_H_
#define SHARDSTEP_CLIENT_STATE_WRITE_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shardstep/client/connection.h"
#include "shardstep/client/retry.h"
#include "shardstep/client/write_feed.h"
#include "shardstep/v1/frame.pb.h"

namespace shardstep::internal {

// So much is taken from the feed ahead of what went out, for all servers together.
inline constexpr size_t kMaxQueuedWriteBytes = 32 << 20;

// Sends what the feed gives to every server, to all at the same time, each behind `begin`. Blocks
// until every server has taken its own, an error is final, or `deadline`. A write that broke off is
// repeated from its beginning. When this returns nothing refers to the slices' memory.
absl::Status WriteStateToAll(Connection* connection, const v1::WriteBegin& begin, WriteFeed* feed,
                             const RetryPolicy& policy, absl::Time deadline);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_STATE_WRITE_H_
