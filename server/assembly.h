// Assembly: puts arriving slices into the buffers of one server's shards and knows what is still
// missing.
//
// Gradients (a push) and values and state (a write into a staging) arrive the same way: any slices,
// in any order, each element once. A buffer is allocated when its first slice has been checked,
// never by a declared size. Rows of a gradient (v1.Slice.ROWS) are kept as they come, beside the
// elements; whether a gradient consists of rows is for whoever knows the push's End to check.
//
// Tensors of a shard are numbered as in v1.Slice: 0 is the parameter (in a push: its gradient), k
// is Description.states[k - 1].
#ifndef SHARDSTEP_SERVER_ASSEMBLY_H_
#define SHARDSTEP_SERVER_ASSEMBLY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/optim/row_reduction.h"
#include "shardstep/server/interval_set.h"
#include "shardstep/server/layout.h"
#include "shardstep/server/memory_budget.h"
#include "shardstep/v1/frame.pb.h"
#include "shardstep/wire/frame.h"

namespace shardstep {

// Confined to one thread at a time.
class Assembly {
 public:
  enum class Takes { kParameters, kParametersAndState };

  // `budget` must outlive it; what the buffers take is taken from it.
  Assembly(std::shared_ptr<const Layout> layout, MemoryBudget* budget,
           Takes takes = Takes::kParameters);

  // Copies the payload of one Slices frame into place; what comes in the parameter's declared dtype
  // is widened to the shard's on the way. INVALID_ARGUMENT names the slice that is
  // wrong (shard not here, range, dtype, kind of body, overlap, payload size) and nothing of that
  // slice was applied; RESOURCE_EXHAUSTED if the budget is spent.
  absl::Status Apply(const FrameView& frame);
  // Takes the numbers of one Scalars frame. INVALID_ARGUMENT: no such scalar, or no shard of its
  // parameter here.
  absl::Status ApplyScalars(const FrameView& frame);
  // Makes the buffer of one tensor of a local shard, covered whole, for the caller to fill.
  // RESOURCE_EXHAUSTED if the budget is spent.
  absl::StatusOr<char*> Claim(size_t local, uint32_t tensor);
  void SetScalar(uint32_t parameter, uint32_t tensor, double value) {
    scalars_[{parameter, tensor}] = value;
  }

  const Layout& layout() const { return *layout_; }
  uint32_t num_tensors() const { return num_tensors_; }
  // By local shard (below layout().local.size()) and tensor. What lies outside
  // is undefined, or zero after ZeroGaps.
  const IntervalSet& coverage(size_t local, uint32_t tensor = 0) const {
    return coverage_[Slot(local, tensor)];
  }
  // Flat tensor of local shard `local`; undefined if nothing arrived for it.
  const at::Tensor& buffer(size_t local, uint32_t tensor = 0) const {
    return buffers_[Slot(local, tensor)];
  }
  // The rows that arrived for local shard `local`, in their order.
  const std::vector<RowChunk>& rows(size_t local) const { return rows_[local]; }
  // By parameter and tensor.
  using Scalars = std::map<std::pair<uint32_t, uint32_t>, double>;
  const Scalars& scalars() const { return scalars_; }
  // Slices and Scalars frames applied, and the digest over their checksums.
  uint64_t frames() const { return frames_; }
  uint64_t digest() const { return digest_.value(); }

  // Gives up a buffer, which is then undefined here.
  at::Tensor TakeBuffer(size_t local, uint32_t tensor = 0) {
    return std::move(buffers_[Slot(local, tensor)]);
  }
  // What the buffers took from the budget; whoever takes buffers keeps it as long as they live.
  MemoryBudget::Reservation TakeReservation() { return std::move(reservation_); }
  // Zeroes what no slice reached in the buffers that exist.
  void ZeroGaps();

  // DATA_LOSS where the sender's End does not agree with what arrived.
  absl::Status CheckEnd(uint64_t frames, uint64_t digest) const;

 private:
  size_t Slot(size_t local, uint32_t tensor) const {
    return tensor * layout_->local.size() + local;
  }
  absl::Status CheckSlice(const v1::Slice& slice) const;
  absl::Status CheckRange(const v1::Slice& slice, const LocalTensor& tensor) const;
  // What CheckRange is for rows; `payload` begins with their numbers.
  absl::Status CheckRows(const v1::Slice& slice, const LocalShardInfo& shard,
                         PayloadReader payload) const;
  absl::Status ApplySlice(const v1::Slice& slice, PayloadReader* payload);
  absl::Status ApplyRows(const v1::Slice& slice, PayloadReader* payload);
  absl::Status Reserve(const LocalShardInfo& shard, int64_t bytes);
  absl::Status Allocate(size_t local, uint32_t tensor, at::Tensor* buffer);

  const std::shared_ptr<const Layout> layout_;
  const uint32_t num_tensors_;
  MemoryBudget* const budget_;
  MemoryBudget::Reservation reservation_;
  std::vector<at::Tensor> buffers_;          // by slot
  std::vector<IntervalSet> coverage_;        // by slot
  std::vector<std::vector<RowChunk>> rows_;  // by local shard
  std::vector<int64_t> num_rows_;            // in them
  Scalars scalars_;
  uint64_t frames_ = 0;
  FrameDigest digest_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_ASSEMBLY_H_
