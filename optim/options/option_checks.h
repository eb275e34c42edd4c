// Which optimizers there are, which options each has, and what their values must be: PyTorch 2.11's
// keyword arguments, defaults and error texts (torch/optim/*.py), and the like for LAMB, LARS and
// RowWiseAdagrad, which it has not. Pure functions, safe from any thread.
#ifndef SHARDSTEP_OPTIM_OPTIONS_OPTION_CHECKS_H_
#define SHARDSTEP_OPTIM_OPTIONS_OPTION_CHECKS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/optim/options/option_value.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {

// The names of the optimizers that can be made.
std::vector<std::string> KnownOptimizers();

// INVALID_ARGUMENT: `kind` is none of these; they are listed.
absl::Status UnknownOptimizer(absl::string_view kind);

// The constructor of torch.optim's class `kind`: every option of 2.11 in PyTorch's order, those in
// `given` with their values, the others with their defaults. `foreach`, `fused`, `capturable` and
// `differentiable` are carried as they are and choose nothing.
// INVALID_ARGUMENT: an unknown kind (the known ones are listed); an unknown option, in Python's
// words "SGD.__init__() got an unexpected keyword argument 'foo'"; whatever CheckOptions refuses.
absl::StatusOr<OptionMap> CompleteOptions(absl::string_view kind, const OptionMap& given);

// The checks on values, for a full set of options of `kind`, whether just made or changed later.
// Options that the optimizer does not know are let pass, as PyTorch does in groups. Messages are
// PyTorch's: "Invalid learning rate: -0.1", "Invalid beta parameter at index 0: 1.0", ...; where
// Python raises a TypeError: `option "lr": expected a number, got 'fast'`. As in PyTorch, SGD lets
// NaN pass and the others, where they check, do not; infinity passes.
absl::Status CheckOptions(absl::string_view kind, const OptionMap& full);

// What `kind` asks of a parameter's sizes. INVALID_ARGUMENT with PyTorch's words: "Muon only
// supports 2D parameters whereas we found a parameter with size: torch.Size([3])"; or ours, where
// PyTorch has no such class.
absl::Status CheckSizes(absl::string_view kind, absl::string_view parameter, const Shape& sizes);

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_OPTIONS_OPTION_CHECKS_H_
