// The torch.optim side of one server: the shards of an optimizer's parameters that lie here, their
// state, and steps over them.
//
// A LocalOptimizer has neither threads nor locks; whoever drives it decides who works when. A step
// is BeginStep, RunBlock for every block (in any order, on any threads), FinishStep. Everything
// else happens between steps and from one thread at a time. None of it blocks. The results are the
// same to the last bit whatever the shards, the blocks and the threads.
//
// Where elements depend on each other, sums over all shards of a parameter come first, in
// reduce_rounds() rounds. Each of these is RunBlock for every block, FinishRound, which gives the
// parts of sums that other servers have terms of, and BeginRound with their totals; after the last
// one, the blocks are those of the update. Until then nothing of the state is written, and
// AbandonStep drops the step.
//
// state() is made of handles: a copy of it is a snapshot, which costs no copy of tensors. Memory
// that any such copy (or any other handle or view) holds is never written: a step reads it and
// writes fresh memory; else it works in place. Handles are taken between steps, and dropped at any
// time.
#ifndef SHARDSTEP_OPTIM_LOCAL_OPTIMIZER_H_
#define SHARDSTEP_OPTIM_LOCAL_OPTIMIZER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/optim/blocks.h"
#include "shardstep/optim/coupled_update.h"
#include "shardstep/optim/gradient_sum.h"
#include "shardstep/optim/local_state.h"
#include "shardstep/optim/optimizer.h"
#include "shardstep/optim/options/param_group.h"
#include "shardstep/optim/shard_step.h"
#include "shardstep/optim/shard_sums.h"
#include "shardstep/sharding/dtype.h"
#include "shardstep/sharding/region.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {

struct ShardValue {
  size_t parameter = 0;  // index into the optimizer's parameter names
  at::Tensor value;      // contiguous float32 or float64, detached
  // Where it lies in its parameter, and the parameter's sizes; both empty: it is all of it.
  Region region = {};
  Shape sizes = {};
};

// What a step depends on beyond this server.
struct StepFacts {
  // By group: the dtype of the first of its parameters that is stepped. Missing, or kInvalid: the
  // parameter's own.
  std::vector<DType> group_dtypes;
  // The groups as they are in this step, if that is not groups(): SetOption follows when the step
  // is ended.
  std::optional<std::vector<ParamGroup>> groups;
};

class LocalOptimizer {
 public:
  // `groups` are complete and hold every one of `parameter_names` once. The optimizer takes the
  // shards' memory over where nobody else holds it. `block_elements` is the unit of work.
  // INVALID_ARGUMENT: unknown kind; what CheckGroups, CheckOptions or CheckSizes refuse; names that
  // are missing or unknown; a shard of no parameter, not contiguous, of another dtype or not of its
  // region, or cut where the optimizer allows no cut. RESOURCE_EXHAUSTED: no memory for state that
  // there is at the start.
  static absl::StatusOr<LocalOptimizer> Create(std::string kind, std::vector<ParamGroup> groups,
                                               const std::vector<std::string>& parameter_names,
                                               std::vector<ShardValue> shards,
                                               int64_t block_elements = kBlockElements);

  // Replaces the state: `states` by shard, in the shards' order (contiguous, as many elements as
  // the shard, or as ExtentRegion says, and of its dtype), `scalars` by parameter. A parameter
  // whose shards have none begins anew. INVALID_ARGUMENT, nothing changed: what does not fit, or a
  // name that this optimizer has not; FAILED_PRECONDITION: a step is under way; RESOURCE_EXHAUSTED,
  // nothing changed: as Create.
  absl::Status SetState(std::vector<std::vector<TensorState>> states,
                        std::vector<std::vector<ScalarState>> scalars);

  // Whether BeginStep takes a gradient that is still a sum: not where elements depend on each
  // other.
  bool TakesSums() const { return optimizer_->AsCoupled() == nullptr; }

  // Begins a step. `gradients[i]` (contiguous, of shard i's dtype and number of elements) is only
  // read; a sum is formed part by part, by the pass that consumes it. An undefined one means that
  // no trainer has a gradient for the parameter, which is then left out whole: no state, no step
  // count, no decay; all shards of a parameter agree on this. All are first multiplied by
  // `coefficient` (see ClipCoefficient), if there is one.
  //
  // Where `rows[i]` is defined (int64, ascending, each once), gradient i consists of these rows of
  // shard i alone: two-dimensional, rows by the shard's elements in its other dimensions. `rows`
  // may be empty. INVALID_ARGUMENT: gradients that do not fit, or that the optimizer does not take
  // (CheckTakesRows, CheckTakesDense); FAILED_PRECONDITION: a step is under way;
  // RESOURCE_EXHAUSTED: no memory. In every such case nothing has changed.
  absl::Status BeginStep(std::vector<ShardGradient> gradients, std::optional<double> coefficient,
                         std::vector<at::Tensor> rows = {}, const StepFacts& facts = {});

  int reduce_rounds() const { return terms_.coupling.reduce_rounds; }
  size_t num_blocks() const { return blocks_.size(); }

  // Runs block `index` of the round or update under way, once. Thread-safe for distinct blocks.
  void RunBlock(size_t index);

  // After a round's blocks: what this server's shards have of the sums with terms elsewhere, in the
  // order of shards, then sums. RESOURCE_EXHAUSTED, INTERNAL: ATen failed in a block; abandon the
  // step. FAILED_PRECONDITION: no round is under way.
  absl::StatusOr<std::vector<ShardSums>> FinishRound();
  // Takes the totals for exactly these parts, in their order, and goes on to the next round or to
  // the update. INVALID_ARGUMENT, nothing done: they do not fit. FAILED_PRECONDITION: no round has
  // been finished. RESOURCE_EXHAUSTED, INTERNAL: ATen failed; abandon the step.
  absl::Status BeginRound(const std::vector<ShardSums>& totals);

  // Drops the step under way, if there is one, of whose update no block was run.
  void AbandonStep();

  // Ends the step: state() is the new one. RESOURCE_EXHAUSTED, INTERNAL: ATen failed in a block;
  // the values are then part old and part new, and this object must not be used any further.
  // FAILED_PRECONDITION: no update is under way.
  absl::Status FinishStep();

  const LocalState& state() const { return state_; }
  const std::vector<ParamGroup>& groups() const { return groups_; }

  // param_groups[group][name] = value; options that the optimizer does not know may be set too.
  // INVALID_ARGUMENT, nothing changed: no such group, or what CheckOptions refuses.
  absl::Status SetOption(size_t group, absl::string_view name, const OptionValue& value);

 private:
  struct BlockWork {
    size_t step = 0;  // index into steps_
    ShardBlock block;
    absl::Status status;
  };
  struct Place {
    Region region;
    Shape sizes;
  };

  LocalOptimizer() = default;
  absl::Status MapParameters(const std::vector<std::string>& names);
  // Fills in where the shard lies, if that is not said, and gives the value its region's shape.
  absl::Status PlaceShard(size_t index, const std::string& parameter, ShardValue& shard) const;
  // Adds what is missing of the state that every shard here has before its first step.
  void AddInitialState(std::vector<std::vector<TensorState>>* states,
                       std::vector<std::vector<ScalarState>>* scalars) const;
  // What a step of the shard may depend on; into `of`, whose memory is used again.
  void GetFacts(size_t shard, const StepFacts& facts, ShardFacts* of) const;
  // Lays out the blocks of the round, or of the update.
  void LayOutBlocks();

  std::string kind_;
  std::unique_ptr<const Optimizer> optimizer_;
  std::vector<ParamGroup> groups_;
  std::vector<size_t> group_of_;  // by parameter
  LocalState state_;
  std::vector<Place> places_;  // by shard
  StepTerms terms_;            // the coefficient is that of the step under way

  // The step under way.
  bool stepping_ = false;
  int round_ = 0;  // reduce_rounds(): the update
  bool round_finished_ = false;
  std::vector<std::vector<ScalarState>> scalars_out_;
  std::vector<ShardStep> steps_;
  std::vector<BlockWork> blocks_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_LOCAL_OPTIMIZER_H_
