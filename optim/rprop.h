// torch.optim.Rprop (torch/optim/rprop.py, _single_tensor_rprop, not capturable).
#ifndef SHARDSTEP_OPTIM_RPROP_H_
#define SHARDSTEP_OPTIM_RPROP_H_

#include <optional>
#include <vector>

#include "shardstep/optim/optimizer.h"

namespace shardstep {

// State: step, prev (the last gradient, zeros where its sign had changed), step_size, which begins
// with the lr of the parameter's first step; later changes of lr do nothing.
class RpropOptimizer : public Optimizer {
 public:
  std::vector<StateSpec> States(const OptionMap& options) const override;
  std::vector<StateSpec> AllStates() const override;
  bool UpdatesAnyPart() const override { return true; }
  std::optional<double> InitialValue(absl::string_view state,
                                     const OptionMap& options) const override;
  BlockUpdate Begin(const OptionMap& options, at::ScalarType dtype,
                    absl::Span<double> scalars) const override;
  BlockUpdate BeginVectorized(const OptionMap& options, at::ScalarType dtype,
                              absl::Span<double> scalars) const override;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_RPROP_H_
