// torch.optim.Adagrad (torch/optim/adagrad.py, _single_tensor_adagrad).
#ifndef SHARDSTEP_OPTIM_ADAGRAD_H_
#define SHARDSTEP_OPTIM_ADAGRAD_H_

#include <optional>
#include <vector>

#include "shardstep/optim/optimizer.h"

namespace shardstep {

// State, from the start: step and sum, which begins with initial_accumulator_value. PyTorch takes
// that from the constructor for all groups and makes none for a group that is added later, whose
// first step fails; here it is the group's own, added or not.
class AdagradOptimizer : public Optimizer {
 public:
  std::vector<StateSpec> States(const OptionMap& options) const override;
  std::vector<StateSpec> AllStates() const override;
  bool UpdatesAnyPart() const override { return true; }
  bool HasStateAtStart() const override { return true; }
  std::optional<double> InitialValue(absl::string_view state,
                                     const OptionMap& options) const override;
  BlockUpdate Begin(const OptionMap& options, at::ScalarType dtype,
                    absl::Span<double> scalars) const override;
  // With other roundings than a step by all elements.
  BlockUpdate BeginRows(const OptionMap& options, at::ScalarType dtype,
                        absl::Span<double> scalars) const override;
  BlockUpdate BeginVectorized(const OptionMap& options, at::ScalarType dtype,
                              absl::Span<double> scalars) const override;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_ADAGRAD_H_
