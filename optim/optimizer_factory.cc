#include "shardstep/optim/optimizer_factory.h"

#include "shardstep/optim/adam.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/optim/sgd.h"

namespace shardstep {

absl::StatusOr<std::unique_ptr<const Optimizer>> MakeOptimizer(absl::string_view kind) {
  if (kind == "SGD") return std::make_unique<const SgdOptimizer>();
  // They differ in their default options alone.
  if (kind == "Adam" || kind == "AdamW") return std::make_unique<const AdamOptimizer>();
  return UnknownOptimizer(kind);
}

}  // namespace shardstep
