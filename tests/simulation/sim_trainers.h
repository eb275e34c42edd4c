// SimTrainers: the trainers of a simulated run, one at work for each trainer rank. When one dies
// another one takes its place after a while.
#ifndef SHARDSTEP_TESTS_SIMULATION_SIM_TRAINERS_H_
#define SHARDSTEP_TESTS_SIMULATION_SIM_TRAINERS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "shardstep/tests/simulation/ledger.h"
#include "shardstep/tests/simulation/sim_trainer.h"

namespace shardstep {

class SimTrainers {
 public:
  // All that `outside` names must outlive it, but the ledger.
  explicit SimTrainers(SimTrainer::Outside outside) : outside_(std::move(outside)) {}

  // A trainer for every rank, of a new optimizer. Those before are gone.
  void Start(Ledger* ledger);
  // The trainer of `rank` dies; the next one comes after `outage`, or a little later.
  void Kill(int rank, absl::Duration outage);
  // It is held up, and replaced meanwhile: it goes on behind that and does not know.
  void Replace(int rank, absl::Duration pause);
  // All end where they are, and nobody comes after them.
  void KillAll();
  // All come to rest as soon as they can: those of a synchronous optimizer behind the same step.
  void Rest();

  // Each rank was acknowledged so many steps since Mark.
  bool Trained(uint64_t steps) const;
  void Mark();
  bool Resting() const;
  int size() const { return static_cast<int>(current_.size()); }
  Process* process(int rank) { return current_[rank]->process(); }

 private:
  void Begin(int rank);
  // Looks for trainers that are dead.
  void Watch();
  uint64_t Acknowledged(int rank) const;

  SimTrainer::Outside outside_;
  std::vector<std::unique_ptr<SimTrainer>> all_;
  std::vector<SimTrainer*> current_;
  std::vector<absl::Time> absent_until_;
  std::vector<uint64_t> marks_;
  int instances_ = 0;
  bool watching_ = false;
  bool over_ = false;
  uint64_t rests_at_ = UINT64_MAX;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_SIM_TRAINERS_H_
