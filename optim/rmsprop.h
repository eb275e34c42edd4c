// torch.optim.RMSprop (torch/optim/rmsprop.py, _single_tensor_rmsprop).
#ifndef SHARDSTEP_OPTIM_RMSPROP_H_
#define SHARDSTEP_OPTIM_RMSPROP_H_

#include <vector>

#include "shardstep/optim/optimizer.h"

namespace shardstep {

// State: step, square_avg, momentum_buffer with momentum, grad_avg if centered. Where momentum or
// centered is switched on after the first step, PyTorch fails with a KeyError; here the new state
// begins with zeros then.
class RMSpropOptimizer : public Optimizer {
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

#endif  // SHARDSTEP_OPTIM_RMSPROP_H_
