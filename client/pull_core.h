// Pulls and state reads: which snapshot is read, and what happens when it is gone.
#ifndef SHARDSTEP_CLIENT_PULL_CORE_H_
#define SHARDSTEP_CLIENT_PULL_CORE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "shardstep/client/client_core.h"
#include "shardstep/client/optimizer_calls.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/client/slice_sink.h"
#include "shardstep/v1/coordinator.pb.h"

namespace shardstep::internal {

// Not thread-safe. Methods block.
class PullCore {
 public:
  // `header`: optimizer, and the session if there is one.
  PullCore(std::shared_ptr<const ClientCore> client, v1::CallHeader header,
           std::shared_ptr<const OptimizerIndex> index);
  // Closes the snapshot that a step left, as far as the coordinator can be reached.
  ~PullCore();

  const std::shared_ptr<const OptimizerIndex>& index() const { return index_; }

  // See ShardedOptimizer. `at_least`: the version to wait for.
  absl::StatusOr<PullResult> Pull(absl::Span<const NamedTensor> into, uint64_t at_least,
                                  absl::Duration timeout);
  absl::StatusOr<OptimizerState> State(uint64_t at_least, absl::Duration timeout);

  // What a step held: read by the next Pull or State that it serves.
  void Offer(const v1::Snapshot& snapshot);
  // Snapshots done with: the next Step tells the coordinator.
  std::vector<uint64_t> TakeClosed();

 private:
  // Reads `selector` of one snapshot into the sink that `make_sink` makes for each attempt.
  template <typename Sink, typename MakeSink>
  absl::StatusOr<v1::Snapshot> Read(v1::SnapshotKind kind, const v1::Selector& selector,
                                    uint64_t at_least, absl::Time deadline,
                                    const MakeSink& make_sink, std::unique_ptr<Sink>* sink);
  absl::StatusOr<v1::Snapshot> OpenSnapshot(v1::SnapshotKind kind, uint64_t at_least,
                                            absl::Time deadline);
  absl::Status ReadSnapshot(const v1::Snapshot& snapshot, const v1::Selector& selector,
                            SliceSink* sink, absl::Time deadline);
  void Close(uint64_t snapshot);
  // The optimizer was made anew, with another plan.
  absl::Status Describe(absl::Time deadline);

  const std::shared_ptr<const ClientCore> client_;
  const v1::CallHeader header_;
  std::shared_ptr<const OptimizerIndex> index_;
  std::optional<v1::Snapshot> offered_;
  std::vector<uint64_t> closed_;
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_PULL_CORE_H_
