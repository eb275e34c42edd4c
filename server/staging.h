// Staging: what a change brings along (values of a create or of a group that is added; values and
// state of a load or restore), on one server, until it is complete and becomes the optimizer's.
#ifndef SHARDSTEP_SERVER_STAGING_H_
#define SHARDSTEP_SERVER_STAGING_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/optim/local_optimizer.h"
#include "shardstep/server/assembly.h"
#include "shardstep/server/interval_set.h"
#include "shardstep/server/layout.h"
#include "shardstep/server/memory_budget.h"
#include "shardstep/v1/peer.pb.h"

namespace shardstep {

// Several sessions may fill one staging, each by one write per server, or the server itself from a
// checkpoint (session 0). Confined to its shard host's serializer.
class Staging {
 public:
  // INVALID_ARGUMENT: `change.tensors` names what the layout has not. Its description is not looked
  // at: `layout` was made of it.
  static absl::StatusOr<Staging> Make(uint64_t id, std::shared_ptr<const Layout> layout,
                                      const v1::StagedChange& change);

  uint64_t id() const { return id_; }
  const std::shared_ptr<const Layout>& layout() const { return layout_; }
  // What it is filled from; empty: from clients.
  const std::string& checkpoint_id() const { return checkpoint_id_; }
  // The optimizer's state stays as it is.
  bool keep_state() const { return keep_state_; }
  // So do the groups that there are.
  bool keep_groups() const { return keep_groups_; }
  // Whether this tensor of a local shard is to be filled; numbered as in Assembly.
  bool Wants(size_t local, uint32_t tensor) const { return wanted_[Slot(local, tensor)]; }
  // By parameter and tensor; of parameters with shards here.
  const std::set<std::pair<uint32_t, uint32_t>>& wanted_scalars() const { return wanted_scalars_; }
  // Bytes of all that is wanted.
  int64_t wanted_bytes() const { return wanted_bytes_; }

  // Takes a write that arrived whole. One that its session repeats succeeds without change; one
  // that overlaps another session's or brings what is not wanted is INVALID_ARGUMENT.
  absl::Status Add(uint64_t session, std::shared_ptr<Assembly> write);
  bool HasWrite(uint64_t session) const { return writes_.count(session) > 0; }
  // All that is wanted is here.
  bool complete() const { return missing_ == 0 && missing_scalars_.empty(); }

  // What came, by local shard: an undefined value was not wanted; a master that was is the value.
  // Flat tensors of the shard's dtype, states in the description's order. Once complete; the
  // staging is empty afterwards. Copies only tensors that several sessions filled. `reservations`
  // get what the buffers took from their budget.
  absl::StatusOr<LocalState> Take(std::vector<MemoryBudget::Reservation>* reservations);

 private:
  Staging(uint64_t id, std::shared_ptr<const Layout> layout, const v1::StagedChange& change);

  size_t Slot(size_t local, uint32_t tensor) const {
    return tensor * layout_->local.size() + local;
  }
  absl::StatusOr<at::Tensor> TakeTensor(size_t local, uint32_t tensor);

  uint64_t id_;
  std::shared_ptr<const Layout> layout_;
  std::string checkpoint_id_;
  bool keep_state_;
  bool keep_groups_;
  uint32_t num_tensors_;
  std::vector<bool> wanted_;  // by slot
  std::set<std::pair<uint32_t, uint32_t>> wanted_scalars_;
  int64_t wanted_bytes_ = 0;

  std::map<uint64_t, std::shared_ptr<Assembly>> writes_;  // by session
  std::vector<IntervalSet> coverage_;                     // by slot
  int64_t missing_ = 0;                                   // elements
  std::set<std::pair<uint32_t, uint32_t>> missing_scalars_;
  Assembly::Scalars scalars_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_STAGING_H_
