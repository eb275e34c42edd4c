// Learning rates over time: the schedules of torch.optim.lr_scheduler with PyTorch 2.11's numbers,
// to the last bit. Each follows the recursive form there, from the groups' present rates, so a rate
// that is set by hand in between is scaled from then on.
//
//   auto scheduler = LrScheduler::Create(StepLr{/*step_size=*/30}, &optimizer);
//   for (...) {
//     optimizer.Step();
//     scheduler->Step(&optimizer);
//     optimizer.set_trainer_state(scheduler->SaveState());
//   }
//
// A rate travels with the next Step of the optimizer and is recorded with its version; in
// synchronous mode all trainers set equal ones. A trainer that starts again, or is set back, has
// the groups' rates and the trainer state of the version that it goes on from: Resume puts them
// together, and the next Step of the scheduler follows.
//
// Nothing here blocks. Not thread-safe, as the optimizer's handle.
#ifndef SHARDSTEP_CLIENT_LR_SCHEDULER_H_
#define SHARDSTEP_CLIENT_LR_SCHEDULER_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/client/sharded_optimizer.h"

namespace shardstep {

// Every `step_size` epochs the rate is multiplied by `gamma`.
struct StepLr {
  int64_t step_size = 0;
  double gamma = 0.1;
};

// At each milestone (an epoch; as often as it stands there) the rate is multiplied by `gamma`.
struct MultiStepLr {
  std::vector<int64_t> milestones;
  double gamma = 0.1;
};

// The rate times `factor` for the first `total_iters` epochs.
struct ConstantLr {
  double factor = 1.0 / 3;
  int64_t total_iters = 5;
};

// From the rate times `start_factor` to the rate times `end_factor` in `total_iters` epochs: the
// usual warm-up.
struct LinearLr {
  double start_factor = 1.0 / 3;
  double end_factor = 1.0;
  int64_t total_iters = 5;
};

struct ExponentialLr {
  double gamma = 1.0;
};

// Half a cosine from the rate to `eta_min` in `t_max` epochs, and back.
struct CosineAnnealingLr {
  int64_t t_max = 0;
  double eta_min = 0;
};

using LrSchedule =
    std::variant<StepLr, MultiStepLr, ConstantLr, LinearLr, ExponentialLr, CosineAnnealingLr>;

// One schedule after the other: schedules[i + 1] begins, from its own first epoch and the rates at
// the very beginning, at milestones[i]. A warm-up is SequentialLr{{LinearLr{...}, then}, {epochs}}.
struct SequentialLr {
  std::vector<LrSchedule> schedules;
  std::vector<int64_t> milestones;
};

class LrScheduler {
 public:
  // Of the groups' present rates, to which the schedule's first epoch is applied as PyTorch's
  // constructors do. INVALID_ARGUMENT, in PyTorch's words where it has some: a schedule that cannot
  // be followed. What SetOption refuses.
  static absl::StatusOr<LrScheduler> Create(LrSchedule schedule, ShardedOptimizer* optimizer);
  static absl::StatusOr<LrScheduler> Create(SequentialLr schedule, ShardedOptimizer* optimizer);
  // The same on numbers alone: one rate per group, which become those of the first epoch.
  static absl::StatusOr<LrScheduler> Create(SequentialLr schedule, std::vector<double>* rates);
  // Goes on where SaveState was called, with the same schedule; sets nothing. INVALID_ARGUMENT: not
  // such a state, or one of another number of schedules.
  static absl::StatusOr<LrScheduler> Resume(LrSchedule schedule, absl::string_view state);
  static absl::StatusOr<LrScheduler> Resume(SequentialLr schedule, absl::string_view state);

  // The next epoch: sets the groups' rates. A group that was added since begins with the rate that
  // it has. What SetOption refuses; then some groups may have their rate already.
  absl::Status Step(ShardedOptimizer* optimizer);
  // The same on numbers alone.
  void Step(std::vector<double>* rates);

  // Epochs since the beginning.
  int64_t last_epoch() const { return last_epoch_; }
  // Some hundred bytes, to be kept in the trainer state.
  std::string SaveState() const;

 private:
  explicit LrScheduler(SequentialLr schedule) : schedule_(std::move(schedule)) {}

  SequentialLr schedule_;
  int64_t last_epoch_ = 0;
  // Of the schedule that is under way, since it began.
  int64_t epoch_ = 0;
  std::vector<double> base_rates_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_LR_SCHEDULER_H_
