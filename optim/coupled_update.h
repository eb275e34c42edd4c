// The arithmetic of optimizers whose elements depend on each other: LAMB, LARS, Adafactor, Muon,
// row-wise Adagrad.
//
// Such a step is a number of rounds (CouplingOf), each of which forms sums over all elements of a
// parameter's rows, columns, matrices, or of all of it, and then the update, which follows from the
// totals. Every shard of a parameter goes through it by itself with the same totals. Nothing of the
// state is written before the update, so that a step can be dropped in every round: what the update
// needs of an element is computed again.
//
// Sums are compensated and rounded once, and all other operations element-wise with one result
// wherever an element stands, so that the bits do not depend on shards, blocks or threads.
#ifndef SHARDSTEP_OPTIM_COUPLED_UPDATE_H_
#define SHARDSTEP_OPTIM_COUPLED_UPDATE_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "shardstep/optim/compensated_sum.h"
#include "shardstep/optim/matrix_blocks.h"
#include "shardstep/optim/optimizer.h"
#include "shardstep/sharding/extent.h"
#include "shardstep/sharding/region.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {

// What a step of one shard may depend on besides options, scalars and tensors.
struct ShardFacts {
  at::ScalarType dtype;        // the parameter's, float32 or float64
  at::ScalarType group_dtype;  // of the first parameter stepped in its group
  Region region;               // of the shard
  Shape sizes;                 // of the parameter
};

// A box of a shard: as Block, but of three dimensions, [matrices, rows, columns]. States of another
// extent than kElement are the box's part of it, with 1 for what is summed over.
struct CoupledBlock : Block {
  MatrixBlock place;
};

// One sum per element of its extent within a block or a shard, by the round's sums.
using RoundSums = std::vector<std::vector<CompensatedSum>>;

// One shard in one step. ATen's exceptions pass through every method.
class CoupledUpdate {
 public:
  virtual ~CoupledUpdate() = default;

  // The sums of a round, all shards' alike.
  virtual std::vector<Extent> Sums(int /*round*/) const { return {}; }
  // Whether AddTerms looks at the gradient; else it may be undefined there.
  virtual bool ReadsGradient(int /*round*/) const { return true; }

  // Adds a block's terms to the round's sums, which are zero. Thread-safe.
  virtual void AddTerms(int /*round*/, const CoupledBlock& /*block*/, RoundSums& /*sums*/) const {}

  // Takes a round's totals. `shard` is all of it, without the gradient. Of its states, those of
  // another extent than kElement are written here, in fresh memory; later rounds read them there.
  virtual void TakeTotals(int /*round*/, const RoundSums& /*totals*/, CoupledBlock& /*shard*/) {}

  // Computes every `out` of a block that TakeTotals did not. Thread-safe for distinct blocks.
  virtual void Update(CoupledBlock& block) const = 0;
};

class CoupledOptimizer : public Optimizer {
 public:
  const CoupledOptimizer* AsCoupled() const final { return this; }
  // Its elements are no business of their own.
  BlockUpdate Begin(const OptionMap& /*options*/, at::ScalarType /*dtype*/,
                    absl::Span<double> /*scalars*/) const final {
    return nullptr;
  }

  // As Optimizer::Begin, for one shard. Every shard of a parameter begins with the same scalars.
  virtual std::unique_ptr<CoupledUpdate> BeginShard(const OptionMap& options,
                                                    const ShardFacts& facts,
                                                    absl::Span<double> scalars) const = 0;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_COUPLED_UPDATE_H_
