// Whether gradients fit the shards that they are to step. Thread-safe.
#ifndef SHARDSTEP_OPTIM_GRADIENT_CHECKS_H_
#define SHARDSTEP_OPTIM_GRADIENT_CHECKS_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "shardstep/optim/gradient_sum.h"
#include "shardstep/optim/local_state.h"
#include "shardstep/optim/options/option_value.h"

namespace shardstep {

// `gradients` and `rows` as LocalOptimizer::BeginStep takes them, for the shards of `state`;
// `options_of` gives a parameter's options in this step, and `takes_sums` says whether a gradient
// may still be a sum. INVALID_ARGUMENT: as there.
absl::Status CheckGradients(const std::string& kind, const LocalState& state,
                            const std::vector<ShardGradient>& gradients,
                            const std::vector<at::Tensor>& rows, bool takes_sums,
                            absl::FunctionRef<const OptionMap&(size_t parameter)> options_of);

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_GRADIENT_CHECKS_H_
