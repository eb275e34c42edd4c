#include "shardstep/optim/options/coupling.h"

namespace shardstep {

Coupling CouplingOf(absl::string_view kind) {
  // Of the gradients' rows and columns and of the parameter; of the rows' variances; of the update.
  if (kind == "Adafactor") return {Coupling::Cut::kAnywhere, 3};
  // Of the parameter and of the update.
  if (kind == "LAMB") return {Coupling::Cut::kAnywhere, 1};
  // Of the parameter and of the gradient.
  if (kind == "LARS") return {Coupling::Cut::kAnywhere, 1};
  // Its matrix products need the matrix.
  if (kind == "Muon") return {Coupling::Cut::kNowhere, 0};
  if (kind == "RowWiseAdagrad") return {Coupling::Cut::kBetweenRows, 0};
  return {};
}

}  // namespace shardstep
