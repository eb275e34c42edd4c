#include "shardstep/server/prepared_step.h"

#include <algorithm>
#include <utility>

#include "shardstep/optim/options/row_gradients.h"
#include "shardstep/server/chain_hash.h"
#include "shardstep/server/device.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"

namespace shardstep {
namespace {

// Without the bitmap's trailing zeros.
absl::string_view Trimmed(const std::string& bitmap) {
  return absl::string_view(bitmap).substr(0, bitmap.find_last_not_of('\0') + 1);
}

uint64_t DigestOf(const std::string& touched, const std::string& by_rows) {
  const uint64_t digest = ChainHash(kEmptyChain, Trimmed(touched));
  return Trimmed(by_rows).empty() ? digest : ChainHash(digest, Trimmed(by_rows));
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
    std::shared_ptr<const Layout> layout, const v1::PrepareStep& request, const Pushes& pushes,
    const std::vector<OptionMap>& options, Reduction::Keep keep) {
  std::unique_ptr<PreparedStep> step(new PreparedStep());
  step->layout_ = std::move(layout);
  step->keep_ = keep;
  step->pushes_ = pushes;
  step->gradients_.resize(step->layout_->local.size());
  step->rows_.resize(step->layout_->local.size());
  std::string& touched = step->touched_;
  std::string whole;  // touched by a push whose gradient is no list of rows
  double weights = 0;
  const auto add = [&](const std::string& also, const std::string& rows) {
    touched.resize(std::max(touched.size(), also.size()));
    whole.resize(touched.size());
    for (size_t i = 0; i < also.size(); ++i) {
      touched[i] |= also[i];
      whole[i] |= also[i] & ~(i < rows.size() ? rows[i] : 0);
    }
  };
  for (size_t c = 0; c < pushes.size(); ++c) {
    const v1::Contribution& contribution = request.contributions(c);
    weights += contribution.weight();
    for (const auto& push : pushes[c]) {
      add(push->touched, push->rows);
      step->computed_on_ =
          std::min(step->computed_on_.value_or(push->computed_on), push->computed_on);
    }
    add(contribution.partial().touched(), contribution.partial().rows());
  }
  if (step->layout_->mixed_dtypes) step->group_dtypes_ = FirstDTypes(*step->layout_, touched);
  step->by_rows_ = touched;
  for (size_t i = 0; i < whole.size(); ++i) step->by_rows_[i] &= ~whole[i];
  SHARDSTEP_RETURN_IF_ERROR(step->CheckForms(options));
  ReductionOptions reduction;
  reduction.grad_scale = request.options().grad_scale() == 0 ? 1 : request.options().grad_scale();
  for (size_t local = 0; local < step->layout_->local.size(); ++local) {
    const int parameter = step->layout_->local[local].parameter;
    if (!Touched(touched, parameter)) continue;
    reduction.divisor = step->layout_->sharded[parameter] ? 1 : weights;
    SHARDSTEP_RETURN_IF_ERROR(Touched(step->by_rows_, parameter)
                                  ? step->AddRows(local, pushes, request, reduction)
                                  : step->AddWhole(local, pushes, request, reduction));
  }
  return step;
}

absl::Status PreparedStep::CheckForms(const std::vector<OptionMap>& options) const {
  const std::string& kind = layout_->description.definition().kind();
  if (Trimmed(touched_) != Trimmed(by_rows_)) SHARDSTEP_RETURN_IF_ERROR(CheckTakesDense(kind));
  if (Trimmed(by_rows_).empty()) return absl::OkStatus();
  for (int group = 0; group < layout_->description.groups_size(); ++group) {
    for (const uint32_t parameter : layout_->description.groups(group).parameters()) {
      if (!Touched(by_rows_, static_cast<int>(parameter))) continue;
      SHARDSTEP_RETURN_IF_ERROR(CheckTakesRows(kind, options[group]));
    }
  }
  return absl::OkStatus();
}

absl::Status PreparedStep::AddWhole(size_t local, const Pushes& pushes,
                                    const v1::PrepareStep& request,
                                    const ReductionOptions& options) {
  const LocalShardInfo& shard = layout_->local[local];
  std::vector<Contribution> contributions;
  for (size_t c = 0; c < pushes.size(); ++c) {
    const double weight = request.contributions(c).weight();
    const size_t before = contributions.size();
    for (const auto& push : pushes[c]) {
      if (!Touched(push->touched, shard.parameter)) continue;
      at::Tensor gradient = push->assembly.buffer(local);
      if (Touched(push->rows, shard.parameter)) {
        SHARDSTEP_ASSIGN_OR_RETURN(
            gradient, DenseFromRows({push->assembly.rows(local), weight}, ScalarTypeOf(shard.dtype),
                                    {shard.rows, shard.row_elements}));
      }
      contributions.push_back({std::move(gradient), weight});
    }
    // A trainer without a gradient counts as zeros, as in DistributedDataParallel.
    if (contributions.size() == before) contributions.push_back({at::Tensor(), 1});
  }
  SHARDSTEP_ASSIGN_OR_RETURN(Reduction reduction,
                             Reduction::Create(std::move(contributions), ScalarTypeOf(shard.dtype),
                                               shard.elements, options, keep_));
  elements_ += shard.elements * static_cast<int64_t>(pushes.size());
  AddReduction(local, std::move(reduction));
  return absl::OkStatus();
}

absl::Status PreparedStep::AddRows(size_t local, const Pushes& pushes,
                                   const v1::PrepareStep& request,
                                   const ReductionOptions& options) {
  const LocalShardInfo& shard = layout_->local[local];
  std::vector<RowContribution> contributions;
  for (size_t c = 0; c < pushes.size(); ++c) {
    for (const auto& push : pushes[c]) {
      if (!Touched(push->touched, shard.parameter)) continue;
      contributions.push_back({push->assembly.rows(local), request.contributions(c).weight()});
      for (const RowChunk& chunk : contributions.back().chunks) elements_ += chunk.elements.numel();
    }
  }
  SHARDSTEP_ASSIGN_OR_RETURN(
      RowReduction reduction,
      RowReduction::Create(std::move(contributions), ScalarTypeOf(shard.dtype),
                           {shard.rows, shard.row_elements}, options));
  AddReduction(local, std::move(reduction));
  return absl::OkStatus();
}

void PreparedStep::AddReduction(size_t local, std::variant<Reduction, RowReduction> reduction) {
  const size_t count = std::visit([](const auto& made) { return made.num_blocks(); }, reduction);
  for (size_t block = 0; block < count; ++block) blocks_.emplace_back(reductions_.size(), block);
  reductions_.push_back({local, std::move(reduction)});
}

std::unique_ptr<PreparedStep> PreparedStep::Restore(std::shared_ptr<const Layout> layout,
                                                    std::vector<ShardGradient> gradients,
                                                    std::vector<at::Tensor> rows) {
  std::unique_ptr<PreparedStep> step(new PreparedStep());
  step->layout_ = std::move(layout);
  step->gradients_ = std::move(gradients);
  step->rows_ = std::move(rows);
  return step;
}

void PreparedStep::RunBlock(size_t index) {
  const auto& [reduction, block] = blocks_[index];
  std::visit([block = block](auto& made) { made.RunBlock(block); },
             reductions_[reduction].reduction);
}

absl::Status PreparedStep::Finish(v1::Prepared* answer) {
  SquaredNorm squares;
  const auto take = [&](size_t local, auto* result) {
    squares = Sum(squares, result->squares);
    if (!result->finite && !answer->non_finite()) {
      answer->set_non_finite(true);
      answer->set_non_finite_parameter(layout_->local[local].parameter);
    }
    gradients_[local] = std::move(result->gradient);
  };
  for (ShardReduction& reduced : reductions_) {
    if (auto* rows = std::get_if<RowReduction>(&reduced.reduction)) {
      SHARDSTEP_ASSIGN_OR_RETURN(ReducedRows result, rows->Finish());
      take(reduced.local, &result);
      rows_[reduced.local] = std::move(result.rows);
    } else {
      SHARDSTEP_ASSIGN_OR_RETURN(ReducedGradient result,
                                 std::get<Reduction>(reduced.reduction).Finish());
      take(reduced.local, &result);
    }
  }
  reductions_.clear();
  if (keep_ == Reduction::Keep::kTensor) pushes_.clear();
  answer->set_squared_norm_hi(squares.hi);
  answer->set_squared_norm_lo(squares.lo);
  answer->set_touched_digest(DigestOf(touched_, by_rows_));
  for (const v1::DType dtype : group_dtypes_) answer->add_group_dtypes(dtype);
  if (computed_on_.has_value()) answer->set_computed_on(*computed_on_);
  return absl::OkStatus();
}

}  // namespace shardstep
