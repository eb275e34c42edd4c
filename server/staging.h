// Staging: the values of a create, on one server, until they are complete and become the
// optimizer's.
#ifndef SHARDSTEP_SERVER_STAGING_H_
#define SHARDSTEP_SERVER_STAGING_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/server/assembly.h"
#include "shardstep/server/interval_set.h"
#include "shardstep/server/layout.h"
#include "shardstep/server/memory_budget.h"

namespace shardstep {

// Several sessions may fill one staging, each by one write per server. Confined to its shard host's
// serializer.
class Staging {
 public:
  Staging(uint64_t id, std::shared_ptr<const Layout> layout);

  uint64_t id() const { return id_; }
  const std::shared_ptr<const Layout>& layout() const { return layout_; }

  // Takes a write that arrived whole. One that its session repeats succeeds without change; one
  // that overlaps another session's is INVALID_ARGUMENT.
  absl::Status Add(uint64_t session, std::shared_ptr<Assembly> write);
  bool HasWrite(uint64_t session) const { return writes_.count(session) > 0; }
  // Every element of every local shard is here.
  bool complete() const { return missing_ == 0; }

  // The values by local shard, once complete; the staging is empty afterwards. Copies only shards
  // that several sessions filled. `reservations` get what the buffers took from their budget.
  absl::StatusOr<std::vector<at::Tensor>> TakeValues(
      std::vector<MemoryBudget::Reservation>* reservations);

 private:
  absl::StatusOr<at::Tensor> TakeValue(size_t local);

  const uint64_t id_;
  const std::shared_ptr<const Layout> layout_;
  std::map<uint64_t, std::shared_ptr<Assembly>> writes_;  // by session
  std::vector<IntervalSet> coverage_;                     // by local shard
  int64_t missing_ = 0;                                   // elements
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_STAGING_H_
