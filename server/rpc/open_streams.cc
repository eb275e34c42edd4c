#include "shardstep/server/rpc/open_streams.h"

#include <utility>
#include <vector>

namespace shardstep {

void OpenStreams::Add(std::shared_ptr<OpenStream> stream) {
  absl::Status closed;
  {
    MutexLock lock(&mutex_);
    streams_[stream.get()] = stream;
    closed = closed_;
  }
  if (!closed.ok()) stream->Close(closed);
}

void OpenStreams::Remove(const OpenStream* stream) {
  std::shared_ptr<OpenStream> removed;  // destroyed without the lock
  MutexLock lock(&mutex_);
  const auto found = streams_.find(stream);
  if (found == streams_.end()) return;
  removed = std::move(found->second);
  streams_.erase(found);
}

void OpenStreams::CloseAll(const absl::Status& status) {
  std::vector<std::shared_ptr<OpenStream>> all;
  {
    MutexLock lock(&mutex_);
    closed_ = status;
    for (const auto& [key, stream] : streams_) all.push_back(stream);
  }
  for (const auto& stream : all) stream->Close(status);
}

}  // namespace shardstep
