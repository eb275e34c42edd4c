// SimFleet: the servers of a simulated run, dead ones and replaced ones included.
#ifndef SHARDSTEP_TESTS_SIMULATION_SIM_FLEET_H_
#define SHARDSTEP_TESTS_SIMULATION_SIM_FLEET_H_

#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "shardstep/checkpoint/simulated_file_system.h"
#include "shardstep/server/node.h"
#include "shardstep/tests/simulation/ledger.h"
#include "shardstep/tests/simulation/sim_network.h"
#include "shardstep/tests/simulation/sim_server.h"
#include "shardstep/tests/simulation/simulation.h"

namespace shardstep {

class SimFleet {
 public:
  // All must outlive it. `options` lack ranks.
  SimFleet(Simulation* simulation, SimNetwork* network, PeerObserver* observer, int servers,
           const NodeOptions& options);
  SimFleet(const SimFleet&) = delete;
  SimFleet& operator=(const SimFleet&) = delete;

  int size() const { return static_cast<int>(current_.size()); }
  // Who has the rank now.
  SimServer* server(int rank) { return current_[rank]; }
  // Whom a caller reaches who wants that server: while one that was replaced is alive, perhaps it.
  SimService* Find(int rank);
  // Of the process; null: it is no server's.
  SimServer* Of(const Process* process);

  // A server that dies starts again after up to this.
  void SetLongestOutage(absl::Duration longest) { longest_outage_ = longest; }
  // Stops the coordinating server and starts another one on a copy of its data directory in its
  // place. The first one goes on `pause` after all others have followed the second, and does not
  // know.
  void ReplaceCoordinator(absl::Duration pause);
  // From now on servers die of nothing but their own will: disks have room, those that were
  // replaced are gone, dead ones start at once.
  void Heal();
  void CrashAll();
  bool AllUp() const;

  // Compares where the servers stand.
  void CheckStandings(Ledger* ledger);
  // Fails the run unless all stand at one version.
  void CheckSettled(Ledger* ledger);

 private:
  SimServer* Add(int rank, std::unique_ptr<SimulatedFileSystem> disk);
  void OnDeath(SimServer* server);
  void Release(SimServer* replaced, absl::Duration pause);

  Simulation* const simulation_;
  SimNetwork* const network_;
  PeerObserver* const observer_;
  const NodeOptions options_;
  SimulatedFileSystem checkpoints_;
  std::vector<std::unique_ptr<SimServer>> all_;
  std::vector<SimServer*> current_;
  absl::Duration longest_outage_ = absl::Seconds(3);
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_SIM_FLEET_H_
