// ShardStep: one shard in a step under way: what it reads, where it writes, and the blocks of its
// work.
//
// Made; for each round of sums, and for the update, LayOut and RunBlock for every block; Finish.
// It refers to nothing that it is given but what it shares: tensors, the sum, the update.
//
// Without locks: RunBlock for distinct blocks may run on several threads at once, all else on one
// thread at a time. ATen's exceptions pass through every method.
#ifndef SHARDSTEP_OPTIM_SHARD_STEP_H_
#define SHARDSTEP_OPTIM_SHARD_STEP_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "shardstep/optim/blocks.h"
#include "shardstep/optim/coupled_shard.h"
#include "shardstep/optim/gradient_sum.h"
#include "shardstep/optim/local_state.h"
#include "shardstep/optim/optimizer.h"
#include "shardstep/optim/options/coupling.h"
#include "shardstep/optim/parameter_step.h"
#include "shardstep/optim/row_update.h"
#include "shardstep/sharding/region.h"

namespace shardstep {

// What all shards have in common in a step.
struct StepTerms {
  Coupling coupling;
  int64_t block_elements = kBlockElements;
  std::optional<double> coefficient;  // that gradients are multiplied by first
};

// A unit of a shard's work.
struct ShardBlock {
  BlockRange range = {0, 0};
  BlockRange rows = {0, 0};  // see RowBlock
  size_t coupled = 0;        // its number, where elements depend on each other
};

class ShardStep {
 public:
  // Of shard `index`, which lies in `region` of its parameter. `rows` is undefined unless the
  // gradient consists of rows. Memory that nobody but `shard` holds is written in place.
  ShardStep(size_t index, const LocalState::Shard& shard, const Region& region,
            const ShardGradient& gradient, const at::Tensor& rows, const ParameterStep& step,
            const StepTerms& terms);

  size_t shard() const { return shard_; }
  // Null where elements do not depend on each other, or the gradient consists of rows.
  CoupledShard* coupled() const { return coupled_.get(); }

  // Begins round `round` of sums, or the update if there have been all: `add` gets each of its
  // blocks. `shard` is that which it was made of. Only at the update is it known who holds its
  // memory: handles may be taken between rounds.
  void LayOut(int round, const LocalState::Shard& shard, const StepTerms& terms,
              absl::FunctionRef<void(const ShardBlock&)> add);
  void RunBlock(const ShardBlock& block, const std::optional<double>& coefficient) const;
  // Ends the update: `shard` gets what it made.
  void Finish(LocalState::Shard* shard);

 private:
  void BeginElements(const LocalState::Shard& shard, const Region& region,
                     const ShardGradient& gradient, const at::Tensor& rows,
                     const ParameterStep& step);
  void BeginCoupled(const LocalState::Shard& shard, const Region& region,
                    const at::Tensor& gradient, const ParameterStep& step, const StepTerms& terms);
  void PlaceOutputs(const LocalState::Shard& shard);
  void UpdateRange(const BlockRange& range, const at::Tensor& gradient,
                   const std::optional<double>& coefficient) const;

  size_t shard_;
  std::shared_ptr<const BlockUpdate> update_;
  at::Tensor value_out_;
  std::vector<TensorState> states_out_;
  // Flat tensors as by Flat(); there are none where it is coupled.
  Block flat_;
  std::shared_ptr<const GradientSum> sum_;  // instead of flat_'s gradient
  bool any_part_ = false;                   // see Optimizer::UpdatesAnyPart
  std::unique_ptr<CoupledShard> coupled_;
  // Of a step by rows; its `rows` are else undefined, and its `flat` stands for flat_.
  RowWork by_rows_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_SHARD_STEP_H_
