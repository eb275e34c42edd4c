// torch.optim.Adam and AdamW (torch/optim/adam.py, _single_tensor_adam with neither capturable nor
// differentiable).
#ifndef SHARDSTEP_OPTIM_ADAM_H_
#define SHARDSTEP_OPTIM_ADAM_H_

#include <vector>

#include "shardstep/optim/optimizer.h"

namespace shardstep {

// State: step (a float32 scalar, which stops counting at 2^24), exp_avg, exp_avg_sq and, with
// amsgrad, max_exp_avg_sq. Where amsgrad is switched on after the first step, PyTorch fails with a
// KeyError; here the maximum starts from zero then. AdamW is Adam with decoupled_weight_decay.
class AdamOptimizer : public Optimizer {
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

#endif  // SHARDSTEP_OPTIM_ADAM_H_
