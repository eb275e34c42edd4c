// torch.optim.ASGD (torch/optim/asgd.py, _single_tensor_asgd, not capturable).
#ifndef SHARDSTEP_OPTIM_ASGD_H_
#define SHARDSTEP_OPTIM_ASGD_H_

#include <optional>
#include <vector>

#include "shardstep/optim/optimizer.h"

namespace shardstep {

// State: step, the scalars eta (begins with lr) and mu (begins with 1), both rounded to float32 in
// every step and used in the step after, and ax, the average. Where Python fails, dividing by zero,
// or turns complex, with a negative lambd, numbers become infinite or NaN here.
class ASGDOptimizer : public Optimizer {
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

#endif  // SHARDSTEP_OPTIM_ASGD_H_
