// ReadLanes: ReadState from several servers at the same time, as frames for one thread to take,
// with a bound on what waits for it.
#ifndef SHARDSTEP_CLIENT_READ_LANES_H_
#define SHARDSTEP_CLIENT_READ_LANES_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/client/byte_stream.h"
#include "shardstep/client/connection.h"
#include "shardstep/client/read_progress.h"
#include "shardstep/client/retry.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/v1/shards.pb.h"
#include "shardstep/wire/byte_buffer.h"
#include "shardstep/wire/frame.h"

namespace shardstep::internal {

// Of each server. A frame that is on its way when the bound is reached still comes.
inline constexpr size_t kMaxQueuedReadBytes = 4 << 20;

// A checked frame of slices, and the memory that its payload lies in.
struct TakenFrame {
  int server_rank = 0;
  ReceivedFrame received;
  FrameView frame;
};

// Used by one thread. A read that breaks off goes on where it was.
class ReadLanes {
 public:
  // Begins `request` (header, snapshot, selector) at each server.
  ReadLanes(Connection* connection, v1::ReadStateRequest request, const v1::Snapshot& snapshot,
            const std::set<int>& servers, const RetryPolicy& policy, absl::Time deadline);
  ~ReadLanes();

  // The next frame with slices, from whichever server has one; nullopt: all servers have sent all.
  // Blocks until then, or an error is final, or the deadline.
  absl::StatusOr<std::optional<TakenFrame>> Next();

 private:
  class Lane;
  struct Events {
    Mutex mutex;
    CondVar changed;
  };

  // A lane with a message or a closed stream; null: no lane is left. At the deadline a stream
  // counts as closed.
  Lane* Await();
  absl::Status Restart(Lane* lane, const absl::Status& broken);

  Connection* const connection_;
  const v1::ReadStateRequest request_;
  Retry retry_;
  Events events_;
  std::vector<std::unique_ptr<Lane>> lanes_;  // that have not sent all
  size_t turn_ = 0;                           // where the search begins
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_READ_LANES_H_
