// torch.optim.RAdam (torch/optim/radam.py, _single_tensor_radam, not capturable).
#ifndef SHARDSTEP_OPTIM_RADAM_H_
#define SHARDSTEP_OPTIM_RADAM_H_

#include <vector>

#include "shardstep/optim/optimizer.h"

namespace shardstep {

// State: step, exp_avg, exp_avg_sq. The variance counts once the approximated length of its average
// is above 5.
class RAdamOptimizer : public Optimizer {
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

#endif  // SHARDSTEP_OPTIM_RADAM_H_
