// torch.optim.SparseAdam (torch/optim/sparse_adam.py and _functional.py).
#ifndef SHARDSTEP_OPTIM_SPARSE_ADAM_H_
#define SHARDSTEP_OPTIM_SPARSE_ADAM_H_

#include <vector>

#include "shardstep/optim/optimizer.h"

namespace shardstep {

// State: step (an integer, of the parameter: it counts for all rows alike), exp_avg and exp_avg_sq.
// Rows without a gradient keep their moments. Not Adam's rounding: eps is added to the root of the
// uncorrected moment, and the correction is formed with sqrt. Takes gradients of rows only
// (CheckTakesDense).
class SparseAdamOptimizer : public Optimizer {
 public:
  std::vector<StateSpec> States(const OptionMap& options) const override;
  std::vector<StateSpec> AllStates() const override;
  BlockUpdate Begin(const OptionMap& options, at::ScalarType dtype,
                    absl::Span<double> scalars) const override;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_SPARSE_ADAM_H_
