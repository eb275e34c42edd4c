#include "shardstep/optim/gradient_checks.h"

#include <cstdint>
#include <optional>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/options/row_gradients.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

// Whether `gradient` (two-dimensional) consists of these rows of a shard.
bool AreRowsOf(const at::Tensor& value, const at::Tensor& gradient, const at::Tensor& rows) {
  if (!gradient.defined() || gradient.scalar_type() != value.scalar_type() || gradient.dim() != 2 ||
      !gradient.is_contiguous() || rows.scalar_type() != at::kLong || !rows.is_contiguous() ||
      rows.numel() != gradient.size(0)) {
    return false;
  }
  const int64_t row_elements = gradient.size(1);
  if (row_elements == 0) return value.numel() == 0;
  if (value.numel() % row_elements != 0) return false;
  int64_t before = -1;
  for (int64_t i = 0; i < rows.numel(); ++i) {
    const int64_t row = rows.const_data_ptr<int64_t>()[i];
    if (row <= before || row >= value.numel() / row_elements) return false;
    before = row;
  }
  return true;
}

absl::Status CheckRows(size_t shard, const at::Tensor& value, const at::Tensor& gradient,
                       const at::Tensor& rows) {
  if (AreRowsOf(value, gradient, rows)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "gradient of shard ", shard, ": expected ascending rows of it, and their elements"));
}

absl::Status CheckSum(const std::string& kind, size_t shard, const at::Tensor& value,
                      const GradientSum& sum, bool takes_sums) {
  if (takes_sums && sum.dtype() == value.scalar_type() && sum.elements() == value.numel()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "gradient of shard ", shard, ": a sum of ", sum.elements(), " elements of ",
      c10::toString(sum.dtype()), ", expected ",
      takes_sums ? absl::StrCat(value.numel(), " of ", c10::toString(value.scalar_type()))
                 : absl::StrCat("a tensor, as ", kind, " needs it")));
}

absl::Status CheckTensor(size_t shard, const at::Tensor& value, const at::Tensor& gradient) {
  if (gradient.scalar_type() == value.scalar_type() && gradient.numel() == value.numel() &&
      gradient.is_contiguous()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("gradient of shard ", shard, ": expected ", value.numel(),
                   " contiguous elements of ", c10::toString(value.scalar_type()), ", got ",
                   gradient.numel(), gradient.is_contiguous() ? "" : " not contiguous", " of ",
                   c10::toString(gradient.scalar_type())));
}

}  // namespace

absl::Status CheckGradients(const std::string& kind, const LocalState& state,
                            const std::vector<ShardGradient>& gradients,
                            const std::vector<at::Tensor>& rows, bool takes_sums,
                            absl::FunctionRef<const OptionMap&(size_t parameter)> options_of) {
  if (gradients.size() != state.shards.size() ||
      (!rows.empty() && rows.size() != gradients.size())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "gradients: expected one for each of ", state.shards.size(), " shards, got ",
        gradients.size(), rows.empty() ? "" : absl::StrCat(", rows of ", rows.size())));
  }
  enum class Form { kNone, kDense, kRows };
  std::vector<std::optional<Form>> forms(state.scalars.size());  // by parameter
  for (size_t i = 0; i < gradients.size(); ++i) {
    const auto& [gradient, sum] = gradients[i];
    const LocalState::Shard& shard = state.shards[i];
    const bool by_rows = !rows.empty() && rows[i].defined();
    const Form form = by_rows ? Form::kRows : gradients[i].defined() ? Form::kDense : Form::kNone;
    const bool first = !forms[shard.parameter].has_value();
    if (first) forms[shard.parameter] = form;
    if (forms[shard.parameter] != form) {
      return absl::InvalidArgumentError(absl::StrCat(
          "gradient of shard ", i, ": expected one for all shards of a parameter or for none"));
    }
    if (first && form != Form::kNone) {
      SHARDSTEP_RETURN_IF_ERROR(by_rows ? CheckTakesRows(kind, options_of(shard.parameter))
                                        : CheckTakesDense(kind));
    }
    if (by_rows) {
      SHARDSTEP_RETURN_IF_ERROR(CheckRows(i, shard.value, gradient, rows[i]));
    } else if (sum != nullptr) {
      SHARDSTEP_RETURN_IF_ERROR(CheckSum(kind, i, shard.value, *sum, takes_sums));
    } else if (gradient.defined()) {
      SHARDSTEP_RETURN_IF_ERROR(CheckTensor(i, shard.value, gradient));
    }
  }
  return absl::OkStatus();
}

}  // namespace shardstep
