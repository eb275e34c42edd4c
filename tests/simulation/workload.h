// Workload: what simulated trainers train, made so that every mistake shows in the numbers.
//
// Parameter "ledger": slot p belongs to trainer rank p % trainers; each committed step of a trainer
// adds exactly 1 to its slots, of which every server has some. Parameter "m" is stepped with
// momentum by gradients that differ from step to step; its bits depend on all steps and their
// order. In a coupled workload they depend on sums over all servers' shards, too.
#ifndef SHARDSTEP_TESTS_SIMULATION_WORKLOAD_H_
#define SHARDSTEP_TESTS_SIMULATION_WORKLOAD_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/optim/local_optimizer.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep {

struct Workload {
  int servers = 3;
  int trainers = 3;
  bool synchronous = true;
  // Shards so large that servers work on them on other threads.
  bool large = false;
  // LARS instead of SGD: with weight decay, as "m" has it, each step needs a round of sums.
  bool coupled = false;

  static constexpr char kOptimizer[] = "ledger";
  static constexpr int kLedger = 0;  // the parameters' places
  static constexpr int kMomentum = 1;

  OptimizerDefinition Definition() const;
  int64_t elements(int parameter) const;
  // In how many pushes trainer rank `rank` gives the gradient of its `step`th committed step.
  int Pushes(int rank, uint64_t step) const;
  // What the `push`th of them has of `parameter`.
  std::vector<float> Gradient(int parameter, int rank, uint64_t step, int push) const;
};

// The same training in one process, on one shard: what the bits must be.
class Reference {
 public:
  static absl::StatusOr<Reference> Create(const Workload& workload);

  // One step, of these trainer ranks, each in its `step`th.
  absl::Status Step(const std::map<int, uint64_t>& contributions);
  uint64_t version() const { return version_; }
  // By parameter; and the momentum buffer of "m", empty before the first step.
  std::vector<float> Values(int parameter) const;
  std::vector<float> MomentumBuffer() const;

 private:
  Reference(const Workload& workload, LocalOptimizer optimizer)
      : workload_(workload), optimizer_(std::move(optimizer)) {}

  Workload workload_;
  LocalOptimizer optimizer_;
  uint64_t version_ = 0;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_WORKLOAD_H_
