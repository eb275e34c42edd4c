// ReadStreams: the ReadState calls to one server, which stay for the reads to come: a call's start
// and end cost more than a small read.
#ifndef SHARDSTEP_CLIENT_READ_STREAMS_H_
#define SHARDSTEP_CLIENT_READ_STREAMS_H_

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "shardstep/client/byte_stream.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/v1/shards.pb.h"
#include "shardstep/wire/limits.h"

namespace shardstep::internal {

// How long a call may take that ReadStreams is given, from its start; it serves no read that begins
// in the second half of it. A read that it ends before its time is one that broke off.
inline constexpr absl::Duration kReadCallLifetime = absl::Seconds(590);
// While more are open none is kept: those that wait for a place on the connection
// (kMaxConcurrentStreams) get that of the read that ends.
inline constexpr int kMaxKeptReadCalls = kMaxConcurrentStreams / 2;

// Thread-safe.
class ReadStreams : public std::enable_shared_from_this<ReadStreams> {
 public:
  // Starts a ReadState call that gives its events to the listener.
  using StartCall = std::function<std::unique_ptr<ByteStream>(StreamListener*)>;

  ReadStreams();
  ~ReadStreams();

  // One read, on an idle call if there is one, else on one that `start` makes; `now` is by a steady
  // clock. The stream takes no messages. When its listener is Complete it ends, by OnClosed(OK),
  // and its call is idle once it is destroyed; one that is destroyed before is cancelled, and its
  // call with it. A stream whose sending is closed ends with its call.
  std::unique_ptr<ByteStream> Start(const v1::ReadStateRequest& request, StreamListener* listener,
                                    absl::Time now, const StartCall& start);

 private:
  class Call;
  class Read;

  std::unique_ptr<Call> TakeIdle();
  void Return(std::unique_ptr<Call> call);

  std::atomic<int> open_{0};  // calls, idle ones too

  Mutex mutex_;
  std::vector<std::unique_ptr<Call>> idle_ ABSL_GUARDED_BY(mutex_);  // the last used comes last
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_READ_STREAMS_H_
