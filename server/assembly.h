// Assembly: puts arriving slices into the buffers of one server's shards and knows what is still
// missing.
//
// Gradients (a push) and values (a write into a staging) arrive the same way: any slices, in any
// order, each element once. A shard's buffer is allocated when its first slice has been checked,
// never by a declared size.
#ifndef SHARDSTEP_SERVER_ASSEMBLY_H_
#define SHARDSTEP_SERVER_ASSEMBLY_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/server/interval_set.h"
#include "shardstep/server/layout.h"
#include "shardstep/server/memory_budget.h"
#include "shardstep/v1/frame.pb.h"
#include "shardstep/wire/frame.h"

namespace shardstep {

// Confined to one thread at a time.
class Assembly {
 public:
  // `budget` must outlive it; what the buffers take is taken from it.
  Assembly(std::shared_ptr<const Layout> layout, MemoryBudget* budget);

  // Copies the payload of one Slices frame into place. INVALID_ARGUMENT names the slice that is
  // wrong (shard not here, range, dtype, kind of body, overlap, payload size) and nothing of that
  // slice was applied; RESOURCE_EXHAUSTED if the budget is spent.
  absl::Status Apply(const FrameView& frame);

  const Layout& layout() const { return *layout_; }
  // By local shard. What lies outside the coverage is zero.
  const IntervalSet& coverage(size_t local) const { return coverage_[local]; }
  // Flat tensor of local shard `local`; undefined if nothing arrived for it.
  const at::Tensor& buffer(size_t local) const { return buffers_[local]; }
  // Slices frames applied, and the digest over their checksums.
  uint64_t frames() const { return frames_; }
  uint64_t digest() const { return digest_.value(); }

  // Gives up the buffer of local shard `local`, which is then undefined here.
  at::Tensor TakeBuffer(size_t local) { return std::move(buffers_[local]); }
  // What the buffers took from the budget; whoever takes buffers keeps it as long as they live.
  MemoryBudget::Reservation TakeReservation() { return std::move(reservation_); }
  // Zeroes what no slice reached in the buffers that exist.
  void ZeroGaps();

  // DATA_LOSS where the sender's End does not agree with what arrived.
  absl::Status CheckEnd(uint64_t frames, uint64_t digest) const;

 private:
  absl::Status ApplySlice(const v1::Slice& slice, PayloadReader* payload);

  const std::shared_ptr<const Layout> layout_;
  MemoryBudget* const budget_;
  MemoryBudget::Reservation reservation_;
  std::vector<at::Tensor> buffers_;
  std::vector<IntervalSet> coverage_;
  uint64_t frames_ = 0;
  FrameDigest digest_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_ASSEMBLY_H_
