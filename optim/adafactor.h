// torch.optim.Adafactor (torch/optim/_adafactor.py, _single_tensor_adafactor).
#ifndef SHARDSTEP_OPTIM_ADAFACTOR_H_
#define SHARDSTEP_OPTIM_ADAFACTOR_H_

#include <memory>
#include <vector>

#include "shardstep/optim/coupled_update.h"

namespace shardstep {

// State: step, and of a parameter with two dimensions or more row_var and col_var, of another
// variance. Three rounds: the squares of the gradient by row and by column and those of the
// parameter; the rows' variances by matrix; the squares of the update.
//
// PyTorch's norms are float32 sums; these are exact and rounded once, so that results agree to some
// units in the last place and not in every bit. Its step fails on a parameter without elements;
// here there is nothing to do but to count it.
class AdafactorOptimizer : public CoupledOptimizer {
 public:
  // Of any parameter; StatesOf says which one has.
  std::vector<StateSpec> States(const OptionMap& options) const override;
  std::vector<StateSpec> StatesOf(const OptionMap& options, const Shape& sizes) const override;
  std::vector<StateSpec> AllStates() const override;
  std::unique_ptr<CoupledUpdate> BeginShard(const OptionMap& options, const ShardFacts& facts,
                                            absl::Span<double> scalars) const override;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_ADAFACTOR_H_
