// What a step must know of a shard's gradient before it is decided: the sum of squares, and whether
// every element is finite; and the gradient itself, either kept or left to be formed again by the
// update (gradient_sum.h). Squares are summed over fixed blocks in element order (squared_norm.h).
// The result is the same to the last bit however the blocks are spread over threads.
#ifndef SHARDSTEP_OPTIM_REDUCTION_H_
#define SHARDSTEP_OPTIM_REDUCTION_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/optim/gradient_sum.h"
#include "shardstep/optim/squared_norm.h"

namespace shardstep {

struct ReducedGradient {
  ShardGradient gradient;  // a tensor is flat
  bool finite = true;
  SquaredNorm squares;
};

// One reduction of one shard. Create, RunBlock for every block, in any order and on any threads,
// then Finish; the caller sees to it that these come one after the other.
class Reduction {
 public:
  // A single contribution that needs no arithmetic is handed through as it is. Else, kTensor: the
  // gradient is kept in fresh memory. kAny: that of a single contribution is left to be formed by
  // the update.
  enum class Keep { kTensor, kAny };

  // INVALID_ARGUMENT: as GradientSum::Create. RESOURCE_EXHAUSTED: no memory.
  static absl::StatusOr<Reduction> Create(std::vector<Contribution> contributions,
                                          at::ScalarType dtype, int64_t elements,
                                          const ReductionOptions& options,
                                          Keep keep = Keep::kTensor);

  size_t num_blocks() const { return blocks_.size(); }

  // Computes block `index`. Thread-safe for distinct blocks; blocks on nothing.
  void RunBlock(size_t index);

  // Gives the result, once. INTERNAL: ATen failed in a block.
  absl::StatusOr<ReducedGradient> Finish();

 private:
  struct BlockResult {
    BlockNorm norm;
    absl::Status status;
  };

  Reduction() = default;
  BlockNorm ComputeBlock(size_t index) const;

  std::shared_ptr<const GradientSum> sum_;
  at::Tensor tensor_;    // the gradient, where it is kept or there already
  bool formed_ = false;  // it is there already
  std::vector<BlockResult> blocks_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_REDUCTION_H_
