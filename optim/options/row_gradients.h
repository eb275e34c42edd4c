// Which optimizers take a gradient that consists of rows (torch's sparse gradients), and which take
// others, with PyTorch 2.11's texts. Pure functions, safe from any thread.
#ifndef SHARDSTEP_OPTIM_OPTIONS_ROW_GRADIENTS_H_
#define SHARDSTEP_OPTIM_OPTIONS_ROW_GRADIENTS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "shardstep/optim/options/option_value.h"

namespace shardstep {

// INVALID_ARGUMENT: optimizer `kind` takes no gradient of rows, or none with these (full) options:
// "Adam does not support sparse gradients, please consider SparseAdam instead". A weight decay
// would change every row: SGD, Adagrad and RowWiseAdagrad refuse it.
absl::Status CheckTakesRows(absl::string_view kind, const OptionMap& options);

// INVALID_ARGUMENT: it takes no other.
absl::Status CheckTakesDense(absl::string_view kind);

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_OPTIONS_ROW_GRADIENTS_H_
