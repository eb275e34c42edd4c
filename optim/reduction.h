// From what the trainers pushed to the gradient of one shard: the arithmetic of a step before the
// optimizer's own, in the parameter's dtype.
//
//   reduced = (c0 * w0 + c1 * w1 + ...) / divisor * (1 / grad_scale)
//
// Contributions are added in the order given, each product and each sum rounded by itself (no fused
// multiply-add); a factor of 1 costs nothing. On the way every element is checked to be finite and
// its square is summed (squared_norm.h), over fixed blocks in element order. The result is the same
// to the last bit however the blocks are spread over threads.
#ifndef SHARDSTEP_OPTIM_REDUCTION_H_
#define SHARDSTEP_OPTIM_REDUCTION_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/optim/squared_norm.h"

namespace shardstep {

// One push's part in one shard.
struct Contribution {
  // Contiguous, with the shard's dtype and number of elements; undefined means zeros, which take
  // part in the sum as +0.0. A push that merely says nothing about the parameter, while another of
  // the same session does, is no contribution.
  at::Tensor gradient;
  double weight = 1;
};

struct ReductionOptions {
  // Mean: the number of trainers, weighted: the sum of their weights. Sum: 1.
  double divisor = 1;
  double grad_scale = 1;
};

// INVALID_ARGUMENT: no weights; dtype neither float32 nor float64; a weight or divisor that is not
// positive and finite; a grad_scale that is 0 or not finite.
absl::Status CheckReduction(const std::vector<double>& weights, at::ScalarType dtype,
                            const ReductionOptions& options);

struct ReducedGradient {
  at::Tensor gradient;  // flat
  bool finite = true;
  SquaredNorm squares;
};

// One reduction of one shard. Create, RunBlock for every block, in any order and on any threads,
// then Finish; the caller sees to it that these come one after the other.
class Reduction {
 public:
  // The result is written into the first contribution's memory where this object is its only owner
  // (move contributions in), else into fresh memory; a single one that needs no arithmetic is
  // handed through as it is. INVALID_ARGUMENT: what CheckReduction refuses; a gradient of another
  // dtype or size, or not contiguous. RESOURCE_EXHAUSTED: no memory.
  static absl::StatusOr<Reduction> Create(std::vector<Contribution> contributions,
                                          at::ScalarType dtype, int64_t elements,
                                          const ReductionOptions& options);

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
  absl::Status Allocate();
  BlockNorm ComputeBlock(size_t index) const;
  at::Tensor Term(size_t contribution, int64_t begin, int64_t length) const;

  std::vector<Contribution> contributions_;
  at::ScalarType dtype_ = at::kFloat;
  int64_t elements_ = 0;
  ReductionOptions options_;
  at::Tensor output_;
  std::vector<BlockResult> blocks_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_REDUCTION_H_
