// SimRun: one simulated run from one seed: servers and trainers, faults, and the judgement.
//
// A run has acts. In each an optimizer is created and trained while faults happen; then all heals,
// training must go on, all comes to rest, and what stands is read and judged; then every server
// dies at once, and it is read and judged again. Between two acts the optimizer is deleted.
#ifndef SHARDSTEP_TESTS_SIMULATION_SIM_RUN_H_
#define SHARDSTEP_TESTS_SIMULATION_SIM_RUN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "shardstep/server/durability.h"
#include "shardstep/tests/simulation/failpoint_list.h"
#include "shardstep/tests/simulation/failpoints.h"
#include "shardstep/tests/simulation/probes.h"
#include "shardstep/tests/simulation/sim_network.h"
#include "shardstep/tests/simulation/workload.h"

namespace shardstep {

struct RunOptions {
  uint64_t seed = 0;
  bool print = false;
  Durability durability = Durability::kWal;
  Workload workload;
  int acts = 1;
  // How long faults happen in each act.
  absl::Duration trouble = absl::Seconds(10);

  // Only this goes wrong instead, in as many acts as it takes: `kind` happens at `point`, `times`
  // times on every server that comes by.
  struct Target {
    Failpoint point;
    FaultKind kind = FaultKind::kCrash;
    uint64_t times = 0;
  };
  std::optional<Target> target;

  // Only the network fails instead, until so many steps were acknowledged.
  struct Lossy {
    NetworkFaults faults;
    uint64_t steps = 0;
  };
  std::optional<Lossy> lossy;
};

// What a seed stands for.
RunOptions OptionsOf(uint64_t seed);

struct RunReport {
  std::vector<std::string> failures;
  uint64_t trace_hash = 0;
  uint64_t events = 0;
  uint64_t acknowledged = 0;
  absl::Duration virtual_time;
  Probes probes;
  FaultCounts fired;
  // Of a lossy run, after each tenth of its steps: bytes of what the coordinator keeps of calls and
  // trainers, and of the pushes that wait on all servers.
  struct Memory {
    uint64_t calls = 0;
    uint64_t pushes = 0;
  };
  std::vector<Memory> memory;
};

RunReport Simulate(const RunOptions& options);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_SIM_RUN_H_
