// SnapshotHold: a snapshot that a reader has, from its opening to its closing.
#ifndef SHARDSTEP_CLIENT_SNAPSHOT_HOLD_H_
#define SHARDSTEP_CLIENT_SNAPSHOT_HOLD_H_

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/client/client_core.h"
#include "shardstep/client/lease_keeper.h"
#include "shardstep/v1/coordinator.pb.h"

namespace shardstep::internal {

// Readers share it. Immutable but for Release, so thread-safe up to that. The destructor closes the
// snapshot, as far as the coordinator can be reached within a second.
class SnapshotHold {
 public:
  // Opens a snapshot of version `at_least` or newer; waits until there is one. `header`: optimizer,
  // lineage, and the session if there is one. DEADLINE_EXCEEDED says which version is the current
  // one.
  static absl::StatusOr<std::shared_ptr<SnapshotHold>> Open(
      std::shared_ptr<const ClientCore> client, const v1::CallHeader& header, v1::SnapshotKind kind,
      uint64_t at_least, absl::Time deadline);
  // Of one that is open: a step's.
  SnapshotHold(std::shared_ptr<const ClientCore> client, v1::CallHeader header,
               v1::Snapshot snapshot)
      : client_(std::move(client)), header_(std::move(header)), snapshot_(std::move(snapshot)) {}
  ~SnapshotHold();
  SnapshotHold(const SnapshotHold&) = delete;
  SnapshotHold& operator=(const SnapshotHold&) = delete;

  const v1::Snapshot& snapshot() const { return snapshot_; }
  // Renews the lease in the background as long as the result lives; `this` must outlive it.
  std::unique_ptr<LeaseKeeper::Lease> KeepAlive() const;
  // Nothing is left to close: the snapshot is gone, or somebody else closes it.
  void Release() { open_ = false; }

 private:
  const std::shared_ptr<const ClientCore> client_;
  const v1::CallHeader header_;
  const v1::Snapshot snapshot_;
  bool open_ = true;
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_SNAPSHOT_HOLD_H_
