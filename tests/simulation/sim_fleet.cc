#include "shardstep/tests/simulation/sim_fleet.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace shardstep {
namespace {

constexpr absl::Duration kLookAgain = absl::Milliseconds(100);

}  // namespace

SimFleet::SimFleet(Simulation* simulation, SimNetwork* network, PeerObserver* observer, int servers,
                   const NodeOptions& options)
    : simulation_(simulation), network_(network), observer_(observer), options_(options) {
  for (int rank = 0; rank < servers; ++rank) current_.push_back(Add(rank, nullptr));
  for (SimServer* const server : current_) server->Start();
}

SimServer* SimFleet::Add(int rank, std::unique_ptr<SimulatedFileSystem> disk) {
  SimServer::Outside outside;
  outside.simulation = simulation_;
  outside.network = network_;
  outside.observer = observer_;
  outside.checkpoints = &checkpoints_;
  outside.find = [this](int to) { return Find(to); };
  outside.died = [this](SimServer* server) { OnDeath(server); };
  all_.push_back(std::make_unique<SimServer>(std::move(outside),
                                             absl::StrCat("s", rank, ".", all_.size()), rank,
                                             options_, std::move(disk)));
  return all_.back().get();
}

SimService* SimFleet::Find(int rank) {
  for (const auto& server : all_) {
    if (server->rank() != rank || server.get() == current_[rank]) continue;
    if (server->process()->alive() && simulation_->random().Chance(0.5)) return server.get();
  }
  return current_[rank];
}

SimServer* SimFleet::Of(const Process* process) {
  for (const auto& server : all_) {
    if (server->process() == process) return server.get();
  }
  return nullptr;
}

void SimFleet::OnDeath(SimServer* server) {
  // A data directory that was copied has no future.
  if (server != current_[server->rank()]) return;
  simulation_->After(simulation_->random().Between(absl::Milliseconds(20), longest_outage_),
                     nullptr, "restart", [this, server] {
                       if (!server->process()->alive() && server == current_[server->rank()])
                         server->Start();
                     });
}

void SimFleet::ReplaceCoordinator(absl::Duration pause) {
  SimServer* const old = current_[kCoordinatorRank];
  if (!old->process()->alive()) return;
  simulation_->probes().Hit("coordinator_replaced");
  if (simulation_->random().Chance(0.5)) {
    // It will come again by itself, and be refused as one that was replaced.
    network_->Cut(old->process());
  } else {
    // What it has sent may arrive when others follow its successor.
    for (int rank = 1; rank < size(); ++rank) {
      network_->Clog(old->process(), current_[rank]->process(), 2 * kLookAgain);
    }
  }
  current_[kCoordinatorRank] = Add(kCoordinatorRank, old->disk()->Clone());
  current_[kCoordinatorRank]->Start();
  Release(old, pause);
}

void SimFleet::Release(SimServer* replaced, absl::Duration pause) {
  if (!replaced->process()->alive()) return;
  simulation_->HoldUp(replaced->process(), std::max(pause, 2 * kLookAgain));
  Node* const node = current_[kCoordinatorRank]->node();
  bool followed = node != nullptr;
  for (int rank = 1; followed && rank < size(); ++rank) {
    followed = observer_->Follows(rank, node->incarnation() << 16);
  }
  if (followed) return;
  simulation_->After(kLookAgain, nullptr, "is it replaced",
                     [this, replaced, pause] { Release(replaced, pause); });
}

void SimFleet::Heal() {
  longest_outage_ = absl::Milliseconds(100);
  for (const auto& server : all_) {
    server->disk()->SetLimit(-1);
    server->disk()->SetSyncError(absl::OkStatus());
    if (server.get() != current_[server->rank()]) server->Crash();
  }
}

void SimFleet::CrashAll() {
  for (SimServer* const server : current_) server->Crash();
}

bool SimFleet::AllUp() const {
  return std::all_of(current_.begin(), current_.end(),
                     [](const SimServer* server) { return server->process().alive(); });
}

void SimFleet::CheckStandings(Ledger* ledger) {
  for (SimServer* const server : current_) {
    if (server->node() == nullptr || !server->process()->alive()) continue;
    const auto host = server->node()->FindHost(Workload::kOptimizer, /*create=*/false);
    if (!host.ok()) continue;
    (*host)->GetStanding([this, ledger, server](const ShardHost::Standing& standing) {
      simulation_->Trace(absl::StrCat(server->process()->name(), " stands at ", standing.lineage,
                                      " ", standing.version, " ", standing.chain_hash));
      ledger->CheckStanding(standing);
    });
  }
}

void SimFleet::CheckSettled(Ledger* ledger) {
  std::vector<ShardHost::Standing> standings;
  for (SimServer* const server : current_) {
    const auto host = server->node()->FindHost(Workload::kOptimizer, /*create=*/false);
    if (!host.ok()) continue;
    (*host)->GetStanding([&](const auto& standing) { standings.push_back(standing); });
  }
  CheckStandings(ledger);
  for (const ShardHost::Standing& standing : standings) {
    if (standing.live && standing.lineage == standings[0].lineage &&
        standing.version == standings[0].version && standings.size() == current_.size()) {
      continue;
    }
    return simulation_->Fail(
        "torn", absl::StrCat("at rest a server stands at version ", standing.version,
                             " of lineage ", standing.lineage, ", server 0 at version ",
                             standings[0].version, " of lineage ", standings[0].lineage));
  }
}

}  // namespace shardstep
