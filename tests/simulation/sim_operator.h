// SimOperator: who deletes optimizers and asks for checkpoints in a simulated run.
#ifndef SHARDSTEP_TESTS_SIMULATION_SIM_OPERATOR_H_
#define SHARDSTEP_TESTS_SIMULATION_SIM_OPERATOR_H_

#include <cstdint>
#include <functional>
#include <string>

#include "shardstep/tests/simulation/sim_network.h"
#include "shardstep/tests/simulation/simulation.h"

namespace shardstep {

// Must outlive the events of its process.
class SimOperator {
 public:
  struct Outside {
    Simulation* simulation = nullptr;
    SimNetwork* network = nullptr;
    std::function<SimService*(int server)> find;
  };
  explicit SimOperator(Outside outside);

  // Each tries until it is done, then calls `done`. Deletes the optimizer of that lineage.
  void Delete(uint64_t lineage, std::function<void()> done);
  void Checkpoint(std::function<void()> done);

 private:
  void Later(std::function<void()> task);
  void AskCheckpoint(const std::string& request_id, std::function<void()> done);

  const Outside outside_;
  Process process_;
  int requests_ = 0;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_SIM_OPERATOR_H_
