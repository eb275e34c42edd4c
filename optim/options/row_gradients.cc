#include "shardstep/optim/options/row_gradients.h"

#include "absl/strings/str_cat.h"

namespace shardstep {

absl::Status CheckTakesRows(absl::string_view kind, const OptionMap& options) {
  if (kind == "SparseAdam") return absl::OkStatus();
  if (kind == "SGD" || kind == "Adagrad" || kind == "RowWiseAdagrad") {
    if (options.Number("weight_decay") == 0) return absl::OkStatus();
    return absl::InvalidArgumentError(
        "weight_decay option is not compatible with sparse gradients");
  }
  if (kind == "Adam" || kind == "AdamW") {
    return absl::InvalidArgumentError(
        "Adam does not support sparse gradients, please consider SparseAdam instead");
  }
  return absl::InvalidArgumentError(absl::StrCat(kind, " does not support sparse gradients"));
}

absl::Status CheckTakesDense(absl::string_view kind) {
  if (kind != "SparseAdam") return absl::OkStatus();
  return absl::InvalidArgumentError(
      "SparseAdam does not support dense gradients, please consider Adam instead");
}

}  // namespace shardstep
