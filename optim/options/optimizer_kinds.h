// The optimizers that can be made: torch.optim's classes in PyTorch 2.11, their options and the
// checks of their constructors; and some that others have made in its style. What option_checks.h
// is built on; others use that.
#ifndef SHARDSTEP_OPTIM_OPTIONS_OPTIMIZER_KINDS_H_
#define SHARDSTEP_OPTIM_OPTIONS_OPTIMIZER_KINDS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "shardstep/optim/options/option_value.h"

namespace shardstep {

struct OptimizerKind {
  std::string name;
  // In the order of PyTorch's defaults dict.
  OptionMap defaults;
  // INVALID_ARGUMENT with PyTorch's words; the first in its order. `full` has every default's name.
  absl::Status (*check)(const OptionMap& full);
  // Stands among the options but is no argument of the constructor.
  std::string fixed;
};

// Never changes; safe from any thread.
const std::vector<OptimizerKind>& OptimizerKinds();

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_OPTIONS_OPTIMIZER_KINDS_H_
