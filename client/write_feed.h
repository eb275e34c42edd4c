// WriteFeed: what is written to the servers of a staging, a part at a time.
#ifndef SHARDSTEP_CLIENT_WRITE_FEED_H_
#define SHARDSTEP_CLIENT_WRITE_FEED_H_

#include <cstddef>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "shardstep/client/tensor_cut.h"
#include "shardstep/v1/frame.pb.h"

namespace shardstep::internal {

// Confined to one thread.
class WriteFeed {
 public:
  virtual ~WriteFeed() = default;

  // Begins again with the same slices.
  virtual void Rewind() = 0;
  // Appends the next slices for server rank r to (*slices)[r]. They own their memory, or it
  // outlives the feed. False: there are no more, and nothing was appended.
  virtual absl::StatusOr<bool> Next(std::vector<std::vector<OutgoingSlice>>* slices) = 0;
  // What goes to a server behind its slices.
  virtual v1::Scalars ScalarsFor(int /*server_rank*/) const { return {}; }
};

// Slices that lie ready.
class ReadySlices final : public WriteFeed {
 public:
  explicit ReadySlices(std::vector<std::vector<OutgoingSlice>> slices)
      : slices_(std::move(slices)) {}

  void Rewind() override { given_ = false; }
  absl::StatusOr<bool> Next(std::vector<std::vector<OutgoingSlice>>* slices) override {
    if (given_) return false;
    given_ = true;
    for (size_t rank = 0; rank < slices_.size(); ++rank) {
      (*slices)[rank].insert((*slices)[rank].end(), slices_[rank].begin(), slices_[rank].end());
    }
    return true;
  }

 private:
  const std::vector<std::vector<OutgoingSlice>> slices_;
  bool given_ = false;
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_WRITE_FEED_H_
