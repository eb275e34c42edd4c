#include "shardstep/server/prepared_step.h"

#include <algorithm>
#include <string>
#include <utility>

#include "shardstep/server/chain_hash.h"
#include "shardstep/server/device.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"

namespace shardstep {
namespace {

// Without the bitmap's trailing zeros.
uint64_t DigestOf(const std::string& bitmap) {
  return ChainHash(kEmptyChain,
                   absl::string_view(bitmap).substr(0, bitmap.find_last_not_of('\0') + 1));
}

// By group: of the first of its parameters that is touched.
std::vector<v1::DType> FirstDTypes(const Layout& layout, const std::string& touched) {
  std::vector<v1::DType> dtypes;
  for (const v1::ParamGroup& group : layout.description.groups()) {
    dtypes.push_back(v1::DTYPE_UNSPECIFIED);
    for (const uint32_t parameter : group.parameters()) {
      if (!Touched(touched, parameter)) continue;
      dtypes.back() = DTypeToProto(MasterDType(layout.parameters[parameter].dtype));
      break;
    }
  }
  return dtypes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PreparedStep>> PreparedStep::Create(
    std::shared_ptr<const Layout> layout, const v1::PrepareStep& request,
    const std::vector<std::vector<std::shared_ptr<const Push>>>& pushes) {
  std::unique_ptr<PreparedStep> step(new PreparedStep());
  step->layout_ = std::move(layout);
  step->request_ = request;
  step->gradients_.resize(step->layout_->local.size());
  std::string touched;
  double weights = 0;
  for (size_t c = 0; c < pushes.size(); ++c) {
    weights += request.contributions(c).weight();
    for (const auto& push : pushes[c]) {
      touched.resize(std::max(touched.size(), push->touched.size()));
      for (size_t i = 0; i < push->touched.size(); ++i) touched[i] |= push->touched[i];
      step->computed_on_ =
          std::min(step->computed_on_.value_or(push->computed_on), push->computed_on);
    }
  }
  step->touched_digest_ = DigestOf(touched);
  if (step->layout_->mixed_dtypes) step->group_dtypes_ = FirstDTypes(*step->layout_, touched);
  ReductionOptions options;
  options.grad_scale = request.options().grad_scale() == 0 ? 1 : request.options().grad_scale();
  for (size_t local = 0; local < step->layout_->local.size(); ++local) {
    const LocalShardInfo& shard = step->layout_->local[local];
    if (!Touched(touched, shard.parameter)) continue;
    std::vector<Contribution> contributions;
    for (size_t c = 0; c < pushes.size(); ++c) {
      const size_t before = contributions.size();
      for (const auto& push : pushes[c]) {
        if (!Touched(push->touched, shard.parameter)) continue;
        contributions.push_back({push->assembly.buffer(local), request.contributions(c).weight()});
      }
      // A trainer without a gradient counts as zeros, as in DistributedDataParallel.
      if (contributions.size() == before) contributions.push_back({at::Tensor(), 1});
    }
    options.divisor = step->layout_->sharded[shard.parameter] ? 1 : weights;
    SHARDSTEP_ASSIGN_OR_RETURN(
        Reduction reduction, Reduction::Create(std::move(contributions), ScalarTypeOf(shard.dtype),
                                               shard.elements, options));
    for (size_t block = 0; block < reduction.num_blocks(); ++block) {
      step->blocks_.emplace_back(step->reductions_.size(), block);
    }
    step->elements_ += shard.elements * pushes.size();
    step->reductions_.push_back({local, std::move(reduction)});
  }
  return step;
}

std::unique_ptr<PreparedStep> PreparedStep::Restore(std::shared_ptr<const Layout> layout,
                                                    const v1::PrepareStep& request,
                                                    std::vector<at::Tensor> gradients) {
  std::unique_ptr<PreparedStep> step(new PreparedStep());
  step->layout_ = std::move(layout);
  step->request_ = request;
  step->gradients_ = std::move(gradients);
  return step;
}

void PreparedStep::RunBlock(size_t index) {
  const auto& [reduction, block] = blocks_[index];
  reductions_[reduction].reduction.RunBlock(block);
}

absl::Status PreparedStep::Finish(v1::Prepared* answer) {
  SquaredNorm squares;
  for (ShardReduction& reduced : reductions_) {
    SHARDSTEP_ASSIGN_OR_RETURN(ReducedGradient result, reduced.reduction.Finish());
    squares = Sum(squares, result.squares);
    if (!result.finite && !answer->non_finite()) {
      answer->set_non_finite(true);
      answer->set_non_finite_parameter(layout_->local[reduced.local].parameter);
    }
    gradients_[reduced.local] = std::move(result.gradient);
  }
  reductions_.clear();
  answer->set_squared_norm_hi(squares.hi);
  answer->set_squared_norm_lo(squares.lo);
  answer->set_touched_digest(touched_digest_);
  for (const v1::DType dtype : group_dtypes_) answer->add_group_dtypes(dtype);
  if (computed_on_.has_value()) answer->set_computed_on(*computed_on_);
  return absl::OkStatus();
}

}  // namespace shardstep
