// torch.optim.NAdam (torch/optim/nadam.py, _single_tensor_nadam, not capturable).
#ifndef SHARDSTEP_OPTIM_NADAM_H_
#define SHARDSTEP_OPTIM_NADAM_H_

#include <optional>
#include <vector>

#include "shardstep/optim/optimizer.h"

namespace shardstep {

// State: step, mu_product (the product of all momentum factors so far, which begins with 1 and is
// rounded to float32 in every step), exp_avg, exp_avg_sq.
class NAdamOptimizer : public Optimizer {
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

#endif  // SHARDSTEP_OPTIM_NADAM_H_
