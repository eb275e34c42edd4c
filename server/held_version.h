// HeldVersion: one server's share of a snapshot.
#ifndef SHARDSTEP_SERVER_HELD_VERSION_H_
#define SHARDSTEP_SERVER_HELD_VERSION_H_

#include <cstdint>
#include <memory>

#include "shardstep/optim/local_optimizer.h"
#include "shardstep/server/layout.h"
#include "shardstep/server/memory_budget.h"
#include "shardstep/v1/coordinator.pb.h"

namespace shardstep {

// Immutable; whoever reads through it holds it by shared_ptr and may outlast the snapshot's
// release. Its tensors are handles: while they are held, a step writes fresh buffers.
struct HeldVersion {
  uint64_t version = 0;
  uint64_t lineage = 0;
  v1::SnapshotKind kind = v1::PARAMETERS;
  std::shared_ptr<const Layout> layout;
  // Without `kind` EVERYTHING the state tensors and scalars are absent.
  LocalState state;
  std::vector<ParamGroup> groups;
  // What the hold may come to cost.
  MemoryBudget::Reservation reservation;
};

// Bytes that a hold of `state` may come to cost.
inline int64_t BytesOf(const LocalState& state, v1::SnapshotKind kind) {
  int64_t bytes = 0;
  for (const LocalState::Shard& shard : state.shards) {
    bytes += shard.value.nbytes();
    if (kind != v1::EVERYTHING) continue;
    for (const TensorState& tensor : shard.states) bytes += tensor.tensor.nbytes();
  }
  return bytes;
}

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_HELD_VERSION_H_
