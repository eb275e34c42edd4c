// torch.optim.SGD (torch/optim/sgd.py, _single_tensor_sgd).
#ifndef SHARDSTEP_OPTIM_SGD_H_
#define SHARDSTEP_OPTIM_SGD_H_

#include <optional>
#include <vector>

#include "shardstep/optim/optimizer.h"

namespace shardstep {

// State: momentum_buffer while momentum is not 0. In a parameter's first step with momentum it
// becomes the gradient itself (after maximize and weight decay), undamped. With momentum a step by
// rows moves all that ever had a gradient, as PyTorch's sparse buffer does; here the buffer is
// dense.
class SgdOptimizer : public Optimizer {
 public:
  std::vector<StateSpec> States(const OptionMap& options) const override;
  std::vector<StateSpec> AllStates() const override;
  bool UpdatesAnyPart() const override { return true; }
  std::optional<double> InitialValue(absl::string_view state,
                                     const OptionMap& options) const override;
  bool RowsMoveAll(const OptionMap& options) const override;
  BlockUpdate Begin(const OptionMap& options, at::ScalarType dtype,
                    absl::Span<double> scalars) const override;
  BlockUpdate BeginVectorized(const OptionMap& options, at::ScalarType dtype,
                              absl::Span<double> scalars) const override;
  BlockUpdate BeginRows(const OptionMap& options, at::ScalarType dtype,
                        absl::Span<double> scalars) const override;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_SGD_H_
