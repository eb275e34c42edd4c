// SimServer: one server of a simulated fleet: a real node (server/node.h) on a simulated disk, with
// a clock and threads of the simulation's.
//
// It dies when Crash is called, when it says itself that it must end, or at a failpoint; from that
// instant nothing it does reaches its disk or anybody else. Sometimes its machine dies with it: its
// disk then keeps what was synced, and of the rest what chance leaves.
#ifndef SHARDSTEP_TESTS_SIMULATION_SIM_SERVER_H_
#define SHARDSTEP_TESTS_SIMULATION_SIM_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shardstep/checkpoint/simulated_file_system.h"
#include "shardstep/checkpoint/stoppable_file_system.h"
#include "shardstep/server/catalog.h"
#include "shardstep/server/checkpoint_store.h"
#include "shardstep/server/node.h"
#include "shardstep/tests/simulation/lease_watch.h"
#include "shardstep/tests/simulation/sim_clock.h"
#include "shardstep/tests/simulation/sim_executor.h"
#include "shardstep/tests/simulation/sim_network.h"
#include "shardstep/tests/simulation/sim_peers.h"
#include "shardstep/tests/simulation/simulation.h"

namespace shardstep {

class SimServer final : public SimService {
 public:
  struct Outside {
    Simulation* simulation = nullptr;
    SimNetwork* network = nullptr;
    PeerObserver* observer = nullptr;
    // What all servers see as the folder of checkpoints.
    FileSystem* checkpoints = nullptr;
    std::function<SimService*(int server)> find;
    // Called, between two events, when this one is dead and has been cleared away.
    std::function<void(SimServer*)> died;
  };

  // `options` lack the server rank. `disk`: null for an empty one.
  SimServer(Outside outside, const std::string& name, int rank, NodeOptions options,
            std::unique_ptr<SimulatedFileSystem> disk);
  ~SimServer() override;

  // The process starts on what its disk has. Only once the last one was cleared away.
  void Start();
  void Crash();
  int rank() const { return rank_; }
  Process* process() override { return &process_; }
  const Process& process() const { return process_; }
  SimClock* clock() { return &clock_; }
  SimulatedFileSystem* disk() { return disk_.get(); }
  // Null while it is dead.
  Node* node() { return node_.get(); }

  void Serve(Method method, const std::string& request, absl::Duration remaining,
             std::function<bool()> gone, Reply<std::string> reply) override;
  SimStream::End Accept(StreamKind kind, std::shared_ptr<SimStream> stream) override;

 private:
  template <typename Request, typename Response>
  void Wait(const std::string& request, absl::Duration remaining, std::function<bool()> gone,
            Reply<std::string> reply, bool create,
            void (Coordinator::*method)(Request, Caller, Reply<Response>));
  template <typename Request, typename Response>
  void Ask(const std::string& request, Reply<std::string> reply,
           void (Coordinator::*method)(Request, Reply<Response>));
  void Boot();
  void Tick();
  void ClearAway();

  const Outside outside_;
  const int rank_;
  NodeOptions options_;
  Process process_;
  SimClock clock_;
  LeaseWatch leases_;
  SimExecutor executor_;
  SimExecutor disk_executor_;
  SimExecutor log_executor_;
  std::unique_ptr<SimulatedFileSystem> disk_;
  SimPeers peers_;

  // Of one life.
  std::unique_ptr<StoppableFileSystem> checkpoint_files_;
  std::unique_ptr<Catalog> catalog_;
  std::unique_ptr<CheckpointStore> checkpoints_;
  std::unique_ptr<Node> node_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_SIM_SERVER_H_
