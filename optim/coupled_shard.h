// One shard of a coupled optimizer in a step: its blocks, and the sums of its rounds.
//
// Without locks: RunBlock for distinct blocks may run on several threads at once, all else on one
// thread at a time. ATen's exceptions pass through.
#ifndef SHARDSTEP_OPTIM_COUPLED_SHARD_H_
#define SHARDSTEP_OPTIM_COUPLED_SHARD_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "shardstep/optim/coupled_update.h"
#include "shardstep/optim/matrix_blocks.h"
#include "shardstep/optim/options/coupling.h"
#include "shardstep/optim/shard_sums.h"

namespace shardstep {

class CoupledShard {
 public:
  // `shard`: all of the shard, in any shape; states in the order of `states`. Its gradient is
  // multiplied by `coefficient` first. Parts of sums are sent under `index`.
  CoupledShard(std::unique_ptr<CoupledUpdate> update, size_t index, const ShardFacts& facts,
               const std::vector<StateSpec>& states, const Block& shard, Coupling::Cut cut,
               int64_t block_elements, std::optional<double> coefficient);

  // Drops the handles on what the update may write over, and takes that again, with where to write;
  // by state, nothing where the outputs are known already. Before BeginUpdate.
  void ReleaseInputs();
  void PlaceOutputs(const Block& shard);

  // Begins round `round`, or the update, and returns how many blocks it has.
  size_t BeginRound(int round);
  size_t BeginUpdate();

  // Runs a block of the round or of the update, once.
  void RunBlock(size_t index);

  // After a round's blocks: appends its sums that have terms in other shards to `parts`.
  void FinishRound(std::vector<ShardSums>* parts);

  // Whether `totals` begin with those of the parts appended, which are then skipped there.
  // INVALID_ARGUMENT: they do not.
  absl::Status CheckTotals(absl::Span<const ShardSums>* totals) const;
  // Ends the round with totals that were checked, and skips them as well.
  void TakeTotals(absl::Span<const ShardSums>* totals);

 private:
  CoupledBlock Part(const MatrixBlock& place, bool with_gradient) const;
  // Zeros: one per value that each of the round's sums has within a place.
  RoundSums Zeros(const MatrixBlock& place) const;

  const std::unique_ptr<CoupledUpdate> update_;
  const size_t index_;
  const ShardFacts facts_;
  const std::optional<double> coefficient_;
  MatrixShape shape_;
  CoupledBlock shard_;
  std::vector<Extent> extents_of_states_;
  std::vector<MatrixBlock> blocks_;
  // The round under way.
  int round_ = 0;
  bool updating_ = false;
  std::vector<Extent> extents_;   // of its sums
  std::vector<RoundSums> terms_;  // by block
  RoundSums sums_;                // of this shard
};

// Whether a sum over `extent` has terms outside of a region of a parameter of these sizes.
bool HasOtherTerms(Extent extent, const Region& region, const Shape& sizes);

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_COUPLED_SHARD_H_
