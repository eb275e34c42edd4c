#include "shardstep/optim/optimizer_factory.h"

#include "shardstep/optim/adadelta.h"
#include "shardstep/optim/adafactor.h"
#include "shardstep/optim/adagrad.h"
#include "shardstep/optim/adam.h"
#include "shardstep/optim/adamax.h"
#include "shardstep/optim/asgd.h"
#include "shardstep/optim/lamb.h"
#include "shardstep/optim/lars.h"
#include "shardstep/optim/muon.h"
#include "shardstep/optim/nadam.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/optim/radam.h"
#include "shardstep/optim/rmsprop.h"
#include "shardstep/optim/row_wise_adagrad.h"
#include "shardstep/optim/rprop.h"
#include "shardstep/optim/sgd.h"
#include "shardstep/optim/sparse_adam.h"

namespace shardstep {

absl::StatusOr<std::unique_ptr<const Optimizer>> MakeOptimizer(absl::string_view kind) {
  if (kind == "SGD") return std::make_unique<const SgdOptimizer>();
  // They differ in their default options alone.
  if (kind == "Adam" || kind == "AdamW") return std::make_unique<const AdamOptimizer>();
  if (kind == "Adagrad") return std::make_unique<const AdagradOptimizer>();
  if (kind == "RMSprop") return std::make_unique<const RMSpropOptimizer>();
  if (kind == "Adadelta") return std::make_unique<const AdadeltaOptimizer>();
  if (kind == "NAdam") return std::make_unique<const NAdamOptimizer>();
  if (kind == "RAdam") return std::make_unique<const RAdamOptimizer>();
  if (kind == "Adamax") return std::make_unique<const AdamaxOptimizer>();
  if (kind == "Rprop") return std::make_unique<const RpropOptimizer>();
  if (kind == "ASGD") return std::make_unique<const ASGDOptimizer>();
  if (kind == "Adafactor") return std::make_unique<const AdafactorOptimizer>();
  if (kind == "Muon") return std::make_unique<const MuonOptimizer>();
  if (kind == "LAMB") return std::make_unique<const LambOptimizer>();
  if (kind == "LARS") return std::make_unique<const LarsOptimizer>();
  if (kind == "SparseAdam") return std::make_unique<const SparseAdamOptimizer>();
  if (kind == "RowWiseAdagrad") return std::make_unique<const RowWiseAdagradOptimizer>();
  return UnknownOptimizer(kind);
}

}  // namespace shardstep
