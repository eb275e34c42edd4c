// Where the slices of a read go: into the user's blocks, or nowhere but into a list.
#ifndef SHARDSTEP_CLIENT_SLICE_SINK_H_
#define SHARDSTEP_CLIENT_SLICE_SINK_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/v1/frame.pb.h"
#include "shardstep/wire/frame.h"

namespace shardstep::internal {

// Takes what a server sends. Slices of one shard come one after the other, those of different
// servers at the same time.
class SliceSink {
 public:
  virtual ~SliceSink() = default;
  // Servers that have something for this sink.
  virtual std::set<int> Servers() const = 0;
  // Reads the slice's bytes from `payload` (none for zeros). INTERNAL: not what was asked for.
  virtual absl::Status Take(int server_rank, const v1::Slice& slice, PayloadReader* payload) = 0;
  virtual absl::Status TakeScalar(const v1::Scalars::Scalar& scalar) = 0;
  // After the last server's end. INTERNAL: something is missing.
  virtual absl::Status Finish() = 0;
};

// Where some of a shard's elements go.
struct ShardRun {
  uint64_t shard_offset;
  uint64_t count;
  char* to;
};

// Fills blocks of parameters. The blocks must outlive the sink.
class BlockSink final : public SliceSink {
 public:
  explicit BlockSink(std::shared_ptr<const OptimizerIndex> index);

  // `blocks` of one parameter, which is added once.
  void Add(int parameter, const std::vector<Block>& blocks);

  std::set<int> Servers() const override { return servers_; }
  absl::Status Take(int server_rank, const v1::Slice& slice, PayloadReader* payload) override;
  absl::Status TakeScalar(const v1::Scalars::Scalar& scalar) override;
  absl::Status Finish() override;

 private:
  struct Target {
    absl::InlinedVector<ShardRun, 1> runs;  // sorted by shard_offset, without overlap
    uint64_t wanted = 0;                    // elements
    uint64_t copied = 0;
  };

  const std::shared_ptr<const OptimizerIndex> index_;
  std::vector<Target> targets_;  // by shard
  std::set<int> servers_;
  size_t wanted_bytes_ = 0;
};

// Finds out which state tensors there are, from any element of each, and what the scalars are.
class PresenceSink final : public SliceSink {
 public:
  using Key = std::pair<int, uint32_t>;  // parameter, v1.Slice.tensor

  PresenceSink(std::shared_ptr<const OptimizerIndex> index, std::set<int> servers)
      : index_(std::move(index)), servers_(std::move(servers)) {}

  std::set<int> Servers() const override { return servers_; }
  absl::Status Take(int server_rank, const v1::Slice& slice, PayloadReader* payload) override;
  absl::Status TakeScalar(const v1::Scalars::Scalar& scalar) override;
  absl::Status Finish() override { return absl::OkStatus(); }

  // After Finish. Tensors have no number, scalars do.
  std::map<Key, std::optional<double>> Take() {
    MutexLock lock(&mutex_);
    return std::move(found_);
  }

 private:
  const std::shared_ptr<const OptimizerIndex> index_;
  const std::set<int> servers_;

  Mutex mutex_;
  std::map<Key, std::optional<double>> found_ ABSL_GUARDED_BY(mutex_);
};

// That the slice lies in a shard of this server and, where it is state, in a state tensor of the
// optimizer, and is of that tensor's dtype. INTERNAL otherwise.
absl::Status CheckSlice(const OptimizerIndex& index, int server_rank, const v1::Slice& slice);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_SLICE_SINK_H_
