#include "shardstep/optim/reduction.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/aten_status.h"
#include "shardstep/optim/blocks.h"
#include "shardstep/optim/buffers.h"
#include "shardstep/optim/scalars.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

absl::Status CheckPositive(absl::string_view what, double value) {
  if (std::isfinite(value) && value > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": expected a positive finite number, got ", value));
}

absl::Status CheckContribution(const Contribution& contribution, at::ScalarType dtype,
                               int64_t elements) {
  const at::Tensor& gradient = contribution.gradient;
  if (!gradient.defined()) return absl::OkStatus();
  if (gradient.scalar_type() != dtype || gradient.numel() != elements ||
      !gradient.is_contiguous()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "gradient: expected ", elements, " contiguous elements of ", c10::toString(dtype), ", got ",
        gradient.numel(), gradient.is_contiguous() ? "" : " not contiguous", " of ",
        c10::toString(gradient.scalar_type())));
  }
  return absl::OkStatus();
}

BlockNorm Measure(const at::Tensor& block) {
  const size_t length = block.numel();
  if (block.scalar_type() == at::kFloat) {
    return MeasureBlock(absl::MakeConstSpan(block.const_data_ptr<float>(), length));
  }
  return MeasureBlock(absl::MakeConstSpan(block.const_data_ptr<double>(), length));
}

}  // namespace

absl::Status CheckReduction(const std::vector<double>& weights, at::ScalarType dtype,
                            const ReductionOptions& options) {
  if (weights.empty()) {
    return absl::InvalidArgumentError("contributions: expected at least one");
  }
  if (dtype != at::kFloat && dtype != at::kDouble) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype: expected Float or Double, got ", c10::toString(dtype)));
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckPositive("divisor", options.divisor));
  if (!std::isfinite(options.grad_scale) || options.grad_scale == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "grad_scale: expected a finite number other than 0, got ", options.grad_scale));
  }
  for (const double weight : weights) {
    SHARDSTEP_RETURN_IF_ERROR(CheckPositive("weight of a contribution", weight));
  }
  return absl::OkStatus();
}

absl::StatusOr<Reduction> Reduction::Create(std::vector<Contribution> contributions,
                                            at::ScalarType dtype, int64_t elements,
                                            const ReductionOptions& options) {
  std::vector<double> weights;
  for (const Contribution& contribution : contributions) weights.push_back(contribution.weight);
  SHARDSTEP_RETURN_IF_ERROR(CheckReduction(weights, dtype, options));
  for (const Contribution& contribution : contributions) {
    SHARDSTEP_RETURN_IF_ERROR(CheckContribution(contribution, dtype, elements));
  }
  Reduction reduction;
  reduction.contributions_ = std::move(contributions);
  reduction.dtype_ = dtype;
  reduction.elements_ = elements;
  reduction.options_ = options;
  reduction.blocks_.resize(BlockCount(elements));
  SHARDSTEP_RETURN_IF_ERROR(reduction.Allocate());
  return reduction;
}

absl::Status Reduction::Allocate() {
  return CatchAten([this] {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    Contribution& first = contributions_[0];
    const bool untouched = contributions_.size() == 1 && first.weight == 1 &&
                           options_.divisor == 1 && options_.grad_scale == 1;
    if (first.gradient.defined() && (untouched || IsSoleOwner(first.gradient))) {
      output_ = first.gradient.view(-1);
    } else {
      output_ = at::empty({elements_}, at::TensorOptions().dtype(dtype_));
    }
    for (Contribution& contribution : contributions_) {
      if (contribution.gradient.defined()) contribution.gradient = contribution.gradient.view(-1);
    }
  });
}

void Reduction::RunBlock(size_t index) {
  BlockResult& result = blocks_[index];
  result.status = CatchAten([&] { result.norm = ComputeBlock(index); });
}

// A contribution's elements times its weight: a view of them where the weight is 1, undefined where
// they are zeros.
at::Tensor Reduction::Term(size_t contribution, int64_t begin, int64_t length) const {
  const auto& [gradient, weight] = contributions_[contribution];
  if (!gradient.defined()) return at::Tensor();
  const at::Tensor elements = gradient.narrow(0, begin, length);
  return weight == 1 ? elements : at::mul(elements, ScalarTensor(weight, dtype_));
}

BlockNorm Reduction::ComputeBlock(size_t index) const {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const auto [begin, length] = BlockAt(index, elements_);
  at::Tensor out = output_.narrow(0, begin, length);

  const at::Tensor first = Term(0, begin, length);
  if (!first.defined()) {
    out.zero_();
  } else if (first.const_data_ptr() != out.const_data_ptr()) {
    out.copy_(first);
  }
  for (size_t i = 1; i < contributions_.size(); ++i) {
    const at::Tensor term = Term(i, begin, length);
    if (term.defined()) {
      out.add_(term);
    } else {
      out.add_(0.0);  // turns -0.0 into +0.0, as adding zeros does
    }
  }
  if (options_.divisor != 1) out.div_(RoundedScalar(options_.divisor, dtype_));
  if (options_.grad_scale != 1) out.mul_(RoundedScalar(1 / options_.grad_scale, dtype_));
  return Measure(out);
}

absl::StatusOr<ReducedGradient> Reduction::Finish() {
  ReducedGradient reduced;
  for (const BlockResult& block : blocks_) {
    SHARDSTEP_RETURN_IF_ERROR(block.status);
    reduced.finite = reduced.finite && block.norm.finite;
    reduced.squares = Sum(reduced.squares, block.norm.squares);
  }
  contributions_.clear();
  reduced.gradient = std::move(output_);
  return reduced;
}

}  // namespace shardstep
