// WireObserver: sees what coordinators and servers say to one another, tells the ledger where
// lineages begin, and counts what is rare.
#ifndef SHARDSTEP_TESTS_SIMULATION_WIRE_OBSERVER_H_
#define SHARDSTEP_TESTS_SIMULATION_WIRE_OBSERVER_H_

#include <cstdint>
#include <map>
#include <set>
#include <utility>

#include "shardstep/tests/simulation/ledger.h"
#include "shardstep/tests/simulation/sim_peers.h"
#include "shardstep/tests/simulation/simulation.h"
#include "shardstep/v1/peer.pb.h"

namespace shardstep {

class WireObserver final : public PeerObserver {
 public:
  // `simulation` must outlive it.
  explicit WireObserver(Simulation* simulation) : simulation_(simulation) {}

  // Of the optimizer that is talked about from now on; null: none.
  void SetLedger(Ledger* ledger) { ledger_ = ledger; }
  void OnPeerMessage(const v1::PeerMessage& message) override;
  void OnPeerReply(int server, uint64_t coordinator_incarnation,
                   const v1::PeerReply& reply) override;
  bool Follows(int server, uint64_t coordinator_incarnation) const override;
  // Of what the coordinator's own server keeps of calls and trainers, when it said so last.
  uint64_t memory_bytes() const { return memory_bytes_; }

 private:
  using Number = std::pair<uint64_t, uint64_t>;  // a ballot
  static Number Of(const v1::Ballot& ballot) {
    return {ballot.coordinator_incarnation(), ballot.attempt()};
  }
  void OnCommit(const v1::Commit& commit);

  Simulation* const simulation_;
  Ledger* ledger_ = nullptr;
  uint64_t coordinator_ = 0;          // the newest that said hello
  std::map<int, uint64_t> followed_;  // by server: the newest coordinator that it welcomed
  std::set<Number> in_doubt_;
  std::set<Number> decided_;
  uint64_t memory_bytes_ = 0;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_WIRE_OBSERVER_H_
