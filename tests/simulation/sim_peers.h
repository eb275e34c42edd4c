// SimPeers: the streams that a simulated coordinator keeps open to all servers (what
// server/rpc/peer_client.h is on a real one).
#ifndef SHARDSTEP_TESTS_SIMULATION_SIM_PEERS_H_
#define SHARDSTEP_TESTS_SIMULATION_SIM_PEERS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "shardstep/server/coordinator.h"
#include "shardstep/server/node.h"
#include "shardstep/tests/simulation/sim_network.h"
#include "shardstep/tests/simulation/simulation.h"

namespace shardstep {

// Sees every message between coordinators and servers.
class PeerObserver {
 public:
  virtual ~PeerObserver() = default;
  virtual void OnPeerMessage(const v1::PeerMessage& message) = 0;
  // Whether that server follows a coordinator of that incarnation or a higher one.
  virtual bool Follows(int server, uint64_t coordinator_incarnation) const = 0;
  // Of `server`, which follows that coordinator.
  virtual void OnPeerReply(int server, uint64_t coordinator_incarnation,
                           const v1::PeerReply& reply) = 0;
};

class SimPeers {
 public:
  struct Outside {
    Simulation* simulation = nullptr;
    SimNetwork* network = nullptr;
    PeerObserver* observer = nullptr;
    // Who has a server rank now.
    std::function<SimService*(int server)> find;
  };

  // Of the server `own_rank`, whose process and node these are.
  SimPeers(Outside outside, int own_rank, Process* process, std::function<Node*()> node)
      : outside_(std::move(outside)),
        own_rank_(own_rank),
        process_(process),
        node_(std::move(node)) {}

  // NodeEnvironment::OpenPeer.
  void Open(int server, const std::string& optimizer, std::weak_ptr<Coordinator> coordinator) {
    Connect({server, optimizer, std::move(coordinator)});
  }
  // What a server does with such a stream.
  SimStream::End Accept(const std::shared_ptr<SimStream>& stream);

 private:
  struct Link {
    int server = 0;
    std::string optimizer;
    std::weak_ptr<Coordinator> coordinator;
  };
  struct Followed {
    uint64_t coordinator_incarnation = 0;
    std::weak_ptr<SimStream> stream;
  };

  void Connect(const Link& link);
  void ConnectLocal(const Link& link, const std::shared_ptr<Coordinator>& coordinator);
  void OnEnd(const Link& link, const absl::Status& status);
  // A stream of an older coordinator ends with FENCED.
  void Replace(const std::string& optimizer, Followed followed);

  const Outside outside_;
  const int own_rank_;
  Process* const process_;
  const std::function<Node*()> node_;
  std::map<std::string, Followed> followed_;  // by optimizer
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_SIM_PEERS_H_
