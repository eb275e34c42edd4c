// From what the trainers pushed to the gradient of one shard: the arithmetic of a step before the
// optimizer's own, in the parameter's dtype.
//
//   gradient = (c0 * w0 + c1 * w1 + ...) / divisor * (1 / grad_scale)
//
// Contributions are added in the order given, each product and each sum rounded by itself (no fused
// multiply-add); a factor of 1 costs nothing. Every element is formed by itself: any part of the
// sum, formed anywhere and any number of times, has the same bits.
#ifndef SHARDSTEP_OPTIM_GRADIENT_SUM_H_
#define SHARDSTEP_OPTIM_GRADIENT_SUM_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/optim/blocks.h"

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

// Holds the contributions. Immutable, so safe from any thread; blocks on nothing.
class GradientSum {
 public:
  // INVALID_ARGUMENT: what CheckReduction refuses; a gradient of another dtype or size, or not
  // contiguous.
  static absl::StatusOr<GradientSum> Create(std::vector<Contribution> contributions,
                                            at::ScalarType dtype, int64_t elements,
                                            const ReductionOptions& options);

  at::ScalarType dtype() const { return dtype_; }
  int64_t elements() const { return elements_; }
  size_t num_contributions() const { return contributions_.size(); }
  // The gradient, flat, where it is a single contribution as it is; else undefined.
  at::Tensor AsItIs() const;

  // Forms the elements of `range` in `out`, a flat tensor of as many that no contribution lies in.
  // ATen's exceptions (memory) pass through.
  void Write(const BlockRange& range, const at::Tensor& out) const;

 private:
  GradientSum() = default;

  std::vector<Contribution> contributions_;  // flat
  at::ScalarType dtype_ = at::kFloat;
  int64_t elements_ = 0;
  ReductionOptions options_;
};

// The gradient of one shard as a step reads it: there already, or formed while it is read.
struct ShardGradient {
  ShardGradient() = default;
  ShardGradient(at::Tensor gradient) : tensor(std::move(gradient)) {}  // NOLINT: either is one
  ShardGradient(std::shared_ptr<const GradientSum> formed) : sum(std::move(formed)) {}  // NOLINT

  bool defined() const { return tensor.defined() || sum != nullptr; }

  at::Tensor tensor;
  std::shared_ptr<const GradientSum> sum;  // where `tensor` is undefined
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_GRADIENT_SUM_H_
