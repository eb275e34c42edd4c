// torch.optim.Adamax (torch/optim/adamax.py, _single_tensor_adamax, neither capturable nor
// differentiable).
#ifndef SHARDSTEP_OPTIM_ADAMAX_H_
#define SHARDSTEP_OPTIM_ADAMAX_H_

#include <vector>

#include "shardstep/optim/optimizer.h"

namespace shardstep {

// State: step, exp_avg, exp_inf (which holds eps already).
class AdamaxOptimizer : public Optimizer {
 public:
  std::vector<StateSpec> States(const OptionMap& options) const override;
  std::vector<StateSpec> AllStates() const override;
  bool UpdatesAnyPart() const override { return true; }
  BlockUpdate Begin(const OptionMap& options, at::ScalarType dtype,
                    absl::Span<double> scalars) const override;
  BlockUpdate BeginVectorized(const OptionMap& options, at::ScalarType dtype,
                              absl::Span<double> scalars) const override;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_ADAMAX_H_
