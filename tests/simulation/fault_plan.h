// FaultPlan: what befalls a simulated run, and when. Each seed has its own mix: some faults often,
// some never.
#ifndef SHARDSTEP_TESTS_SIMULATION_FAULT_PLAN_H_
#define SHARDSTEP_TESTS_SIMULATION_FAULT_PLAN_H_

#include <array>

#include "absl/time/time.h"
#include "shardstep/server/durability.h"
#include "shardstep/tests/simulation/failpoints.h"
#include "shardstep/tests/simulation/sim_fleet.h"
#include "shardstep/tests/simulation/sim_network.h"
#include "shardstep/tests/simulation/sim_trainers.h"
#include "shardstep/tests/simulation/simulation.h"

namespace shardstep {

class FaultPlan {
 public:
  struct Outside {
    Simulation* simulation = nullptr;
    SimNetwork* network = nullptr;
    SimFleet* fleet = nullptr;
    SimTrainers* trainers = nullptr;
    Failpoints* failpoints = nullptr;
    absl::Duration lease;
  };
  // Chooses the mix. Without durability no server dies.
  FaultPlan(Outside outside, Durability durability);

  void Begin();
  // Heals everything.
  void End();

 private:
  enum Fault {
    kCrash,
    kCrashAll,
    kHoldUpServer,
    kHoldUpTrainer,
    kJump,
    kClog,
    kIsolate,
    kKillTrainer,
    kReplaceTrainer,
    kFullDisk,
    kBrokenDisk,
    kReplaceCoordinator,
    kFaults,  // how many there are
  };

  void Next();
  void Happen(Fault fault);
  absl::Duration UpTo(absl::Duration longest);

  const Outside outside_;
  const Durability durability_;
  // How often each happens, in relation to the others.
  std::array<uint64_t, kFaults> weights_ = {};
  NetworkFaults network_;
  double failpoint_chance_ = 0;
  absl::Duration interval_;
  bool replaced_ = false;
  uint64_t round_ = 0;  // odd: it is on
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_FAULT_PLAN_H_
