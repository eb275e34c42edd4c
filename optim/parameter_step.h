// What the shards of one parameter share in a step: how its elements are updated, which states that
// takes, and the parameter's scalars as they are afterwards. Without locks; the update may be
// called on several threads at once.
#ifndef SHARDSTEP_OPTIM_PARAMETER_STEP_H_
#define SHARDSTEP_OPTIM_PARAMETER_STEP_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "shardstep/optim/coupled_update.h"
#include "shardstep/optim/local_state.h"
#include "shardstep/optim/optimizer.h"
#include "shardstep/optim/options/option_value.h"
#include "shardstep/optim/options/state_spec.h"

namespace shardstep {

struct ParameterStep {
  const Optimizer* optimizer = nullptr;
  const OptionMap* options = nullptr;
  std::vector<StateSpec> specs;
  std::vector<ScalarState> scalars;
  // Null where elements depend on each other, unless the gradient consists of rows.
  std::shared_ptr<const BlockUpdate> update;
  bool any_part = false;  // see Optimizer::UpdatesAnyPart
  // Blocks of rows are gathered for the update, and hold all that the states begin with already.
  bool by_rows = false;
  std::vector<at::Scalar> begins;  // by tensor state; of a step by rows only
  // Where elements depend on each other, with the first shard's region.
  std::vector<double> scalars_before;
  ShardFacts facts;
};

// Begins the step of a parameter, one of whose shards has `facts`. `scalars` are the parameter's
// now. `by_rows`: its gradient consists of rows. The optimizer and the options must outlive the
// result. ATen's exceptions pass through it.
ParameterStep BeginParameter(const Optimizer& optimizer, const OptionMap& options,
                             const ShardFacts& facts, std::vector<ScalarState> scalars,
                             bool by_rows);

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_PARAMETER_STEP_H_
