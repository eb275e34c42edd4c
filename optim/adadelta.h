// torch.optim.Adadelta (torch/optim/adadelta.py, _single_tensor_adadelta).
#ifndef SHARDSTEP_OPTIM_ADADELTA_H_
#define SHARDSTEP_OPTIM_ADADELTA_H_

#include <vector>

#include "shardstep/optim/optimizer.h"

namespace shardstep {

// State: step, square_avg, acc_delta. eps stands inside both roots.
class AdadeltaOptimizer : public Optimizer {
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

#endif  // SHARDSTEP_OPTIM_ADADELTA_H_
