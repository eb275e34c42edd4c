// Row-wise Adagrad: one accumulator per row. The rule is FBGEMM's
// EXACT_ROWWISE_ADAGRAD, with the options, checks and state of torchrec's RowWiseAdagrad
// (torchrec/optim/rowwise_adagrad.py).
#ifndef SHARDSTEP_OPTIM_ROW_WISE_ADAGRAD_H_
#define SHARDSTEP_OPTIM_ROW_WISE_ADAGRAD_H_

#include <memory>
#include <optional>
#include <vector>

#include "shardstep/optim/coupled_update.h"

namespace shardstep {

// State, from the start: step and sum, [..., rows, 1], which begins with initial_accumulator_value.
// With g the gradient (negated if the group maximizes, weight_decay * parameter added), per row:
//   sum += mean(g * g)
//   parameter -= (lr / (1 + (step - 1) * lr_decay) / (sqrt(sum) + eps)) * g
// as in FBGEMM every operation on a row's numbers is rounded to the parameter's dtype, the mean's
// sum once. Where FBGEMM and torchrec differ: eps is 1e-10 (FBGEMM: 1e-8), weight decay is FBGEMM's
// mode L2. A whole gradient steps all rows, those of zeros too; one of rows steps these. Rows lie
// whole on a server.
class RowWiseAdagradOptimizer : public CoupledOptimizer {
 public:
  std::vector<StateSpec> States(const OptionMap& options) const override;
  std::vector<StateSpec> AllStates() const override;
  bool HasStateAtStart() const override { return true; }
  std::optional<double> InitialValue(absl::string_view state,
                                     const OptionMap& options) const override;
  std::unique_ptr<CoupledUpdate> BeginShard(const OptionMap& options, const ShardFacts& facts,
                                            absl::Span<double> scalars) const override;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_ROW_WISE_ADAGRAD_H_
