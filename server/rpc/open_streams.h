// OpenStreams: the long-lived streams of one server, so that a drain can end them.
#ifndef SHARDSTEP_SERVER_RPC_OPEN_STREAMS_H_
#define SHARDSTEP_SERVER_RPC_OPEN_STREAMS_H_

#include <map>
#include <memory>

#include "absl/status/status.h"
#include "shardstep/sharding/mutex.h"

namespace shardstep {

// Implementations are thread-safe.
class OpenStream {
 public:
  virtual ~OpenStream() = default;
  // Ends the stream with `status` when what it has to write is written. The first call counts. Does
  // not block.
  virtual void Close(const absl::Status& status) = 0;
};

// Thread-safe, never blocks. Must outlive its streams.
class OpenStreams {
 public:
  // Owns `stream` until Remove. After CloseAll it is closed at once.
  void Add(std::shared_ptr<OpenStream> stream);
  // gRPC has done with `stream`.
  void Remove(const OpenStream* stream);
  // Closes all of them, also those that come later. `status` is not OK.
  void CloseAll(const absl::Status& status);

 private:
  Mutex mutex_;
  std::map<const OpenStream*, std::shared_ptr<OpenStream>> streams_ ABSL_GUARDED_BY(mutex_);
  absl::Status closed_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_OPEN_STREAMS_H_
