// Reading a snapshot from all servers.
#ifndef SHARDSTEP_CLIENT_STATE_READ_H_
#define SHARDSTEP_CLIENT_STATE_READ_H_

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shardstep/client/connection.h"
#include "shardstep/client/retry.h"
#include "shardstep/client/slice_sink.h"
#include "shardstep/v1/coordinator.pb.h"
#include "shardstep/v1/shards.pb.h"

namespace shardstep::internal {

// Reads `request` (header, snapshot, selector) from every server of the sink at the same time, into
// the sink. A read that breaks off goes on where it was. Blocks until all is there, an error is
// final, or `deadline`. ABORTED SNAPSHOT_GONE: the caller opens another snapshot and begins with a
// fresh sink. INTERNAL: a server answered with another version than the snapshot's, or not with
// what was asked for.
absl::Status ReadStateFromAll(Connection* connection, const v1::ReadStateRequest& request,
                              const v1::Snapshot& snapshot, SliceSink* sink,
                              const RetryPolicy& policy, absl::Time deadline);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_STATE_READ_H_
