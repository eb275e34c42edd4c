// torch.optim.Muon (torch/optim/_muon.py, _single_tensor_muon).
#ifndef SHARDSTEP_OPTIM_MUON_H_
#define SHARDSTEP_OPTIM_MUON_H_

#include <memory>
#include <vector>

#include "shardstep/optim/coupled_update.h"

namespace shardstep {

// State: momentum_buffer; no step. Its matrix products, in bfloat16, need the matrix, which
// therefore lies whole on one server and is one block. They are ATen's own, as PyTorch calls them,
// and have its bits wherever ATen computes them with the same instructions.
class MuonOptimizer : public CoupledOptimizer {
 public:
  std::vector<StateSpec> States(const OptionMap& options) const override;
  std::vector<StateSpec> AllStates() const override;
  std::unique_ptr<CoupledUpdate> BeginShard(const OptionMap& options, const ShardFacts& facts,
                                            absl::Span<double> scalars) const override;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_MUON_H_
