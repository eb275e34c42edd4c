// ShardedOptimizer: a trainer's handle on one optimizer of a fleet. torch.optim's methods over
// named parameters.
//
//   auto push = optimizer.StartPush();      // while backward runs
//   push->Add("fc1.weight", MakeTensorView(grad, {10, 4}));
//   push->Finish();
//   optimizer.Step();                       // on all servers, once all trainers are there
//   optimizer.Pull(parameters);             // one version over all servers
//
// Threads: a handle is used by one thread at a time; different handles are independent.
// The methods of a GradientPush may run on another thread than the handle's. Every method that
// talks to the fleet blocks the calling thread, for the time that its options name at most. A
// handle works on while the Client it came from is gone.
//
// Memory: a pushed gradient is borrowed, not copied. It must not change or go away until the Step
// that consumes it has returned OK, or ZeroGrad has returned, or the handle is destroyed; when they
// return no part of the SDK refers to it any more.
//
// Errors carry the server's words. UNAVAILABLE and RESOURCE_EXHAUSTED were retried before they are
// returned.
//
// A server, the coordinator or the network may fail at any time: calls wait for it, up to the time
// that their options name, and push again by themselves what a server has forgotten.
//
// Rewinding: when a load, a restore or a failure has replaced the optimizer's history, the next
// call of every other handle fails once with FAILED_PRECONDITION (see IsRolledBack). Then
// version(), trainer_state(), named_params() and param_groups() are those of the new history,
// pushes and options set since the last step are dropped, and the handle goes on: the caller
// evaluates new gradients from where trainer_state() says.
#ifndef SHARDSTEP_CLIENT_SHARDED_OPTIMIZER_H_
#define SHARDSTEP_CLIENT_SHARDED_OPTIMIZER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "shardstep/client/named_tensor.h"
#include "shardstep/client/optimizer_calls.h"
#include "shardstep/client/row_gradient.h"
#include "shardstep/client/state_dict.h"
#include "shardstep/client/state_dict_reader.h"
#include "shardstep/optim/options/param_group.h"

namespace shardstep {

namespace internal {
class OptimizerCore;
class PullCore;
class PushCore;
}  // namespace internal

// Whether a call failed because the optimizer's history was replaced. The handle has followed:
// lineage(), version() and trainer_state() say where to.
bool IsRolledBack(const absl::Status& status);

// One push of gradients, sent as they are added. Movable; destroyed before Finish it is as if it
// had never begun (and the destructor blocks until no added memory is referred to).
class GradientPush {
 public:
  GradientPush(GradientPush&&) noexcept;
  GradientPush& operator=(GradientPush&&) noexcept;
  ~GradientPush();

  // The gradient of a whole parameter, in any order, each at most once. INVALID_ARGUMENT or
  // NOT_FOUND before anything is sent: unknown name, other sizes than the parameter's, a dtype that
  // is neither its own nor its master's. Does not block on the network. `owner`, where given, is
  // kept as long as the gradient is borrowed, and keeps its memory alive.
  absl::Status Add(absl::string_view name, const ConstTensorView& gradient,
                   const std::shared_ptr<const void>& owner = nullptr);
  // The gradient of a ShardedTensor: one view for each local shard, in their order.
  absl::Status AddShards(absl::string_view name, absl::Span<const ConstTensorView> local_shards,
                         const std::shared_ptr<const void>& owner = nullptr);

  // A gradient of which only some rows are given: in place of Add, with the same errors, and
  // INVALID_ARGUMENT for rows that the parameter has not, for a parameter without dimensions, and
  // for a ShardedTensor. The numbers are copied, the values borrowed. Whether the optimizer takes
  // such a gradient (SparseAdam takes no other) the Step says, in PyTorch's words.
  absl::Status AddRows(absl::string_view name, const RowGradient& gradient,
                       const std::shared_ptr<const void>& owner = nullptr);

  // No more gradients come. Does not wait for servers: the Step that consumes the push does. The
  // set of parameters added is what the push touches; all others have no gradient (None).
  absl::Status Finish();

 private:
  friend class ShardedOptimizer;
  explicit GradientPush(std::shared_ptr<internal::PushCore> core);

  std::shared_ptr<internal::PushCore> core_;
};

// Runs before a step, as torch.optim's closure: may evaluate the model and push gradients. Returns
// the loss.
using Closure = std::function<absl::StatusOr<double>()>;

class ShardedOptimizer {
 public:
  explicit ShardedOptimizer(std::unique_ptr<internal::OptimizerCore> core);  // of the SDK's own use
  ShardedOptimizer(ShardedOptimizer&&) noexcept;
  ShardedOptimizer& operator=(ShardedOptimizer&&) noexcept;
  // Ends the session. Blocks until no pushed memory is referred to: at once where the servers
  // answer, else until their connections are given up (fifteen seconds).
  ~ShardedOptimizer();

  const std::string& name() const;
  int trainer_rank() const;
  // Of the last step or pull, whichever is newer; at first the one found when the handle was made.
  // Never blocks.
  uint64_t version() const;
  uint64_t lineage() const;
  uint64_t durable_version() const;
  // The trainer rank's last committed step when the handle was made, whichever session made it;
  // 0 = none.
  uint64_t last_step_version() const;
  // In the order of construction; those of groups added since behind them.
  const std::vector<ParameterInfo>& named_params() const;

  // The groups with all their options, as found at construction and set on this handle since.
  const std::vector<ParamGroup>& param_groups() const;
  // param_groups[group][name] = value. Checked as the constructor's options are, in PyTorch's
  // words; travels with the next Step and persists.
  absl::Status SetOption(int group, absl::string_view name, OptionValue value);

  // Opaque bytes, 64 KiB at most, that commit with every later step and come back to a later
  // session of this trainer rank: data position, random state. At first what the trainer rank's
  // last committed step carried.
  absl::Status set_trainer_state(std::string bytes);
  const std::string& trainer_state() const;

  // Begins a push. FAILED_PRECONDITION while another one is open.
  absl::StatusOr<GradientPush> StartPush(const PushOptions& options = {});

  // set_to_none: drops the pushes that no step has consumed (no call; the next one says so).
  // Otherwise the parameters that have a gradient get one of explicit zeros, the others stay
  // without. An open push is over; what another thread is adding to it at this moment is waited
  // for.
  absl::Status ZeroGrad(bool set_to_none = true);

  // Consumes the pushes made since the last step and applies the optimizer on all servers, as if
  // followed by ZeroGrad(). DEADLINE_EXCEEDED once options.timeout is over, naming whom it waited
  // for; UNAVAILABLE where the coordinator cannot be reached: "outcome unknown". After both the
  // step is not over: the next Step goes on with it, its pushes and its options, before anything
  // else. ABORTED NONFINITE or GRADIENT_TOO_OLD: nothing changed, the pushes are dropped.
  absl::StatusOr<StepResult> Step(const StepOptions& options = {},
                                  const Closure& closure = nullptr);

  // Fills `into` (names, views; specs are not used) from one version, newer or equal to this
  // handle's last step. On error the views hold anything.
  absl::StatusOr<PullResult> Pull(absl::Span<const NamedTensor> into,
                                  const PullOptions& options = {});

  // torch.optim's add_param_group, on all servers or none: the group gets the constructor's checks
  // and defaults, its parameters stand behind all others. Every trainer calls it; the first one's
  // values stand, a group equal to one that was added before changes nothing. Pushes and options
  // set stay. INVALID_ARGUMENT: what the constructor refuses, a parameter that is in another group,
  // local shards (they are declared when the optimizer is created). FAILED_PRECONDITION while a
  // push is open or a step is not over.
  absl::Status AddParamGroup(const ParameterGroup& group, const AddParamGroupOptions& options = {});

  // What `options` name, of one version, while training goes on. NOT_FOUND: a name that there is
  // not. state() is that of everything but the parameters.
  absl::StatusOr<StateDict> state_dict(const StateDictOptions& options = {});
  absl::StatusOr<StateDict> state(const PullOptions& options = {});
  // The same in pieces.
  absl::StatusOr<StateDictReader> OpenStateDict(const StateDictOptions& options = {});
  // The same into one new safetensors file, which appears whole or not at all.
  absl::StatusOr<SaveResult> SaveStateDict(const std::string& path,
                                           const SaveOptions& options = {});

  // Replaces parameters, optimizer state, groups' options and trainers' states by the source's, on
  // all servers or none, under a new lineage; then this handle is at the source's version, its own
  // pushes and options set are dropped. What the source does not have at all (no parameter, no
  // group, no trainer's state) stays. Scalars may be 0-dim tensors. All trainers may load the same
  // source at once: it is loaded once. The source is borrowed while the call lasts.
  // INVALID_ARGUMENT, and nothing changed: tensors of other sizes or dtypes than the optimizer's,
  // groups of other sets of names, state of a name that is no parameter, and, where strict, missing
  // and unexpected names, all of them.
  absl::StatusOr<LoadResult> LoadStateDict(const StateDict& source,
                                           const LoadOptions& options = {});
  absl::StatusOr<LoadResult> LoadStateDict(const SafetensorsSource& source,
                                           const LoadOptions& options = {});
  absl::StatusOr<LoadResult> LoadStateDict(const CheckpointSource& source,
                                           const LoadOptions& options = {});

 private:
  std::unique_ptr<internal::OptimizerCore> core_;
};

// Reads an optimizer without a session: no trainer rank, no steps. Threads as ShardedOptimizer.
class OptimizerReader {
 public:
  explicit OptimizerReader(std::unique_ptr<internal::PullCore> core);  // of the SDK's own use
  OptimizerReader(OptimizerReader&&) noexcept;
  OptimizerReader& operator=(OptimizerReader&&) noexcept;
  ~OptimizerReader();

  const std::vector<ParameterInfo>& named_params() const;
  // As ShardedOptimizer's; at_least_version 0: whatever version is current.
  absl::StatusOr<PullResult> Pull(absl::Span<const NamedTensor> into,
                                  const PullOptions& options = {});
  absl::StatusOr<StateDict> state_dict(const StateDictOptions& options = {});
  absl::StatusOr<StateDict> state(const PullOptions& options = {});
  absl::StatusOr<StateDictReader> OpenStateDict(const StateDictOptions& options = {});
  absl::StatusOr<SaveResult> SaveStateDict(const std::string& path,
                                           const SaveOptions& options = {});

 private:
  std::unique_ptr<internal::PullCore> core_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_SHARDED_OPTIMIZER_H_
