// LARS: SGD whose rate is scaled per parameter by norm(parameter) / norm(gradient). You, Gitman and
// Ginsburg, "Large Batch Training of Convolutional Networks", arXiv 1708.03888, as in timm (Lars)
// and apex (LARC), where the scale is on the gradient and momentum comes after it, as in
// torch.optim.SGD. It is no class of torch.optim; names and checks follow SGD's.
#ifndef SHARDSTEP_OPTIM_LARS_H_
#define SHARDSTEP_OPTIM_LARS_H_

#include <memory>
#include <optional>
#include <vector>

#include "shardstep/optim/coupled_update.h"

namespace shardstep {

// State: momentum_buffer while momentum is not 0. With g the gradient (negated if the group
// maximizes):
//   d = ratio * (g + weight_decay * parameter)
//   then as SGD with gradient d: momentum, dampening and nesterov
// where ratio is trust_coefficient * norm(parameter)
//     / (norm(g) + weight_decay * norm(parameter) + eps), or 1 where either norm is 0. As in timm
//     it
// is also 1 without weight decay, unless always_adapt is set (as the paper has it).
class LarsOptimizer : public CoupledOptimizer {
 public:
  std::vector<StateSpec> States(const OptionMap& options) const override;
  std::vector<StateSpec> AllStates() const override;
  std::optional<double> InitialValue(absl::string_view state,
                                     const OptionMap& options) const override;
  std::unique_ptr<CoupledUpdate> BeginShard(const OptionMap& options, const ShardFacts& facts,
                                            absl::Span<double> scalars) const override;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_LARS_H_
