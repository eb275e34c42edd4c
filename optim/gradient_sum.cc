#include "shardstep/optim/gradient_sum.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/add.h>
#include <ATen/ops/mul.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/aten_status.h"
#include "shardstep/optim/flat.h"
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

absl::StatusOr<GradientSum> GradientSum::Create(std::vector<Contribution> contributions,
                                                at::ScalarType dtype, int64_t elements,
                                                const ReductionOptions& options) {
  std::vector<double> weights;
  for (const Contribution& contribution : contributions) weights.push_back(contribution.weight);
  SHARDSTEP_RETURN_IF_ERROR(CheckReduction(weights, dtype, options));
  for (const Contribution& contribution : contributions) {
    SHARDSTEP_RETURN_IF_ERROR(CheckContribution(contribution, dtype, elements));
  }
  GradientSum sum;
  sum.contributions_ = std::move(contributions);
  sum.dtype_ = dtype;
  sum.elements_ = elements;
  sum.options_ = options;
  SHARDSTEP_RETURN_IF_ERROR(CatchAten([&sum] {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    for (Contribution& contribution : sum.contributions_) {
      if (contribution.gradient.defined()) contribution.gradient = Flat(contribution.gradient);
    }
  }));
  return sum;
}

at::Tensor GradientSum::AsItIs() const {
  const bool as_it_is = contributions_.size() == 1 && contributions_[0].weight == 1 &&
                        options_.divisor == 1 && options_.grad_scale == 1;
  return as_it_is ? contributions_[0].gradient : at::Tensor();
}

void GradientSum::Write(const BlockRange& range, const at::Tensor& out) const {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const auto plain = [this](size_t i) {
    return i < contributions_.size() && contributions_[i].gradient.defined() &&
           contributions_[i].weight == 1;
  };
  size_t i = 0;
  if (plain(0) && plain(1)) {
    at::Tensor sum = out;
    at::add_out(sum, PartOf(contributions_[0].gradient, range),
                PartOf(contributions_[1].gradient, range));
    i = 2;
  }
  for (; i < contributions_.size(); ++i) {
    const auto& [gradient, weight] = contributions_[i];
    if (!gradient.defined()) {
      // Turns -0.0 into +0.0, as adding zeros does.
      i == 0 ? out.zero_() : out.add_(0.0);
      continue;
    }
    at::Tensor term = PartOf(gradient, range);
    if (weight != 1) term = at::mul(term, ScalarTensor(weight, dtype_));
    i == 0 ? out.copy_(term) : out.add_(term);
  }
  if (options_.divisor != 1) out.div_(RoundedScalar(options_.divisor, dtype_));
  if (options_.grad_scale != 1) out.mul_(RoundedScalar(1 / options_.grad_scale, dtype_));
}

}  // namespace shardstep
