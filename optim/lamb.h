// LAMB: Adam's direction, scaled per parameter by norm(parameter) / norm(direction). You et al.,
// "Large Batch Optimization for Deep Learning", arXiv 1904.00962 version 5, algorithm 2 with bias
// correction, as in apex (FusedLAMB) and timm (Lamb), without their clipping by a global norm: that
// is a step's own here. It is no class of torch.optim; names and checks follow Adam's.
#ifndef SHARDSTEP_OPTIM_LAMB_H_
#define SHARDSTEP_OPTIM_LAMB_H_

#include <memory>
#include <vector>

#include "shardstep/optim/coupled_update.h"

namespace shardstep {

// State: step, exp_avg, exp_avg_sq. With g the gradient (negated if the group maximizes), in step
// t:
//   exp_avg = lerp(exp_avg, g, 1 - beta1); exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g * g
//   r = exp_avg / (1 - beta1^t) / (sqrt(exp_avg_sq) / sqrt(1 - beta2^t) + eps)
//       + weight_decay * parameter
//   parameter -= lr * ratio * r
// where ratio is norm(parameter) / norm(r), or 1 where either norm is 0. As in both sources it is
// also 1 without weight decay, unless always_adapt is set (as the paper has it).
class LambOptimizer : public CoupledOptimizer {
 public:
  std::vector<StateSpec> States(const OptionMap& options) const override;
  std::vector<StateSpec> AllStates() const override;
  std::unique_ptr<CoupledUpdate> BeginShard(const OptionMap& options, const ShardFacts& facts,
                                            absl::Span<double> scalars) const override;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_LAMB_H_
