// Pulls: which snapshot is read, and what happens when it is gone.
#ifndef SHARDSTEP_CLIENT_PULL_CORE_H_
#define SHARDSTEP_CLIENT_PULL_CORE_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "shardstep/client/client_core.h"
#include "shardstep/client/optimizer_calls.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/client/slice_sink.h"
#include "shardstep/client/snapshot_hold.h"
#include "shardstep/v1/coordinator.pb.h"

namespace shardstep::internal {

// Not thread-safe. Methods block.
class PullCore {
 public:
  // `header`: optimizer, and the session and the lineage if there are any.
  PullCore(std::shared_ptr<const ClientCore> client, v1::CallHeader header,
           std::shared_ptr<const OptimizerIndex> index)
      : client_(std::move(client)), header_(std::move(header)), index_(std::move(index)) {}

  const std::shared_ptr<const ClientCore>& client() const { return client_; }
  const v1::CallHeader& header() const { return header_; }
  // Of the last snapshot that was pulled, or as adopted since.
  const std::shared_ptr<const OptimizerIndex>& index() const { return index_; }

  // The optimizer has other parameters, or another history: what a step left is not read any more.
  void Adopt(uint64_t lineage, std::shared_ptr<const OptimizerIndex> index);

  // See ShardedOptimizer. `at_least`: the version to wait for.
  absl::StatusOr<PullResult> Pull(absl::Span<const NamedTensor> into, uint64_t at_least,
                                  absl::Duration timeout);

  // What a step held: read by the next reads that it serves.
  void Offer(const v1::Snapshot& snapshot);
  // Snapshots done with: the next Step tells the coordinator.
  std::vector<uint64_t> TakeClosed();

  // What a step held, if it serves; else opened.
  absl::StatusOr<std::shared_ptr<SnapshotHold>> Hold(v1::SnapshotKind kind, uint64_t at_least,
                                                     absl::Time deadline);
  // The snapshot is gone: it is not read again.
  void Drop(const std::shared_ptr<SnapshotHold>& gone);

 private:
  // `sink`: made for `into` by the index as it is; null: one is made.
  absl::Status Read(const SnapshotHold& hold, absl::Span<const NamedTensor> into,
                    std::unique_ptr<BlockSink> sink, absl::Time deadline);
  void CloseOffered();
  // A snapshot is what it is, whatever became of the optimizer since: no lineage.
  v1::CallHeader ReadHeader() const;

  const std::shared_ptr<const ClientCore> client_;
  v1::CallHeader header_;
  std::shared_ptr<const OptimizerIndex> index_;
  std::shared_ptr<SnapshotHold> offered_;
  std::vector<std::shared_ptr<SnapshotHold>> closed_;
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_PULL_CORE_H_
