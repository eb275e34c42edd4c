// What goes into the calls of a ShardedOptimizer, and what comes out. Plain data.
#ifndef SHARDSTEP_CLIENT_OPTIMIZER_CALLS_H_
#define SHARDSTEP_CLIENT_OPTIMIZER_CALLS_H_

#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace shardstep {

struct PushOptions {
  // This trainer's weight in the mean, finite and above 0; all pushes of one step must have the
  // same.
  double weight = 1.0;
  // No further push follows for the next Step: servers may sum what comes behind it without
  // waiting.
  bool last = false;
  // The version whose parameters the gradients were computed on; absent: the one last pulled
  // through this handle.
  std::optional<uint64_t> computed_on;
};

// What happens to a step whose gradients have an infinity or a NaN: as torch.optim does; all
// servers leave everything as it is, and the step counts; or the step fails with ABORTED, and its
// pushes are dropped.
enum class NonFinite { kPropagate, kSkip, kRefuse };

enum class SnapshotContents { kNone, kParameters, kEverything };

struct StepOptions {
  // Clips the 2-norm of all gradients to this, as torch.nn.utils.clip_grad_norm_.
  std::optional<double> clip_grad_norm;
  // The gradients were multiplied by this (a GradScaler's scale) and are divided by it first.
  std::optional<double> grad_scale;
  NonFinite non_finite = NonFinite::kPropagate;
  // The pushes stay and the next step takes them again, as PyTorch does without zero_grad.
  bool keep_gradients = false;
  // What the step holds for the Pull or state() behind it.
  SnapshotContents snapshot = SnapshotContents::kParameters;
  // How long Step waits for the other trainers and for servers that are away.
  absl::Duration timeout = absl::Minutes(10);
};

struct StepResult {
  uint64_t version = 0;
  // The last version that survives a crash of all servers; 0 with durability "none".
  uint64_t durable_version = 0;
  uint64_t lineage = 0;
  // 2-norm of all gradients, after unscaling and before clipping.
  double grad_norm = 0.0;
  // The gradients were not finite and the policy was kSkip.
  bool skipped = false;
  // What the closure returned.
  std::optional<double> loss;
};

struct PullOptions {
  // Wait for this version if it is not there yet; 0: at least the version of this handle's last
  // step.
  uint64_t at_least_version = 0;
  // How long to wait for that version, and for servers that are away.
  absl::Duration timeout = absl::Minutes(10);
};

struct AddParamGroupOptions {
  // How long to wait for the change, and for the trainers that step before it.
  absl::Duration timeout = absl::Minutes(10);
};

struct PullResult {
  uint64_t version = 0;
  uint64_t lineage = 0;
};

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_OPTIMIZER_CALLS_H_
