// Optimizers by name.
#ifndef SHARDSTEP_OPTIM_OPTIMIZER_FACTORY_H_
#define SHARDSTEP_OPTIM_OPTIMIZER_FACTORY_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/optim/optimizer.h"

namespace shardstep {

// The optimizer of that name, one of KnownOptimizers(). INVALID_ARGUMENT, listing them, for
// another.
absl::StatusOr<std::unique_ptr<const Optimizer>> MakeOptimizer(absl::string_view kind);

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_OPTIMIZER_FACTORY_H_
