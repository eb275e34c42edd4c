// Ledger: what trainers were told, and what must therefore stand in the parameters. The oracle of a
// simulated run. A mistake gets one of these names:
//   lost        something acknowledged is not there
//   duplicated  something is there more often than anybody asked for
//   torn        shards of one version are of different histories
//   forked      one version came about in two ways
//   diverged    the bits are not those of the same steps in one process
#ifndef SHARDSTEP_TESTS_SIMULATION_LEDGER_H_
#define SHARDSTEP_TESTS_SIMULATION_LEDGER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "shardstep/server/durability.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/tests/simulation/simulation.h"
#include "shardstep/tests/simulation/workload.h"
#include "shardstep/v1/coordinator.pb.h"

namespace shardstep {

// Of one optimizer, from its creation to its deletion. A trainer's steps count from 1; its trainer
// state is the number of those committed. Mistakes fail the simulation.
class Ledger {
 public:
  Ledger(Simulation* simulation, const Workload& workload, Durability durability)
      : simulation_(simulation), workload_(workload), durability_(durability) {}

  // A lineage begins at `version`; what came before it is that version of the one before.
  void Begun(uint64_t lineage, uint64_t version);
  // A trainer of `rank` asks for its `step`th step, and hears that it is committed.
  void Asked(int rank, uint64_t lineage, uint64_t step);
  void Acknowledged(int rank, uint64_t step, const v1::StepReply::Committed& reply);
  // A trainer hears where it stands: `steps` are committed, the last one as `last_version` (0: it
  // is not told). Not judged where a newer session of its rank has heard before.
  void Resumed(int rank, uint64_t session, uint64_t lineage, uint64_t steps, uint64_t last_version);

  // The version that a reader who asks now may count on, unless history is replaced meanwhile.
  struct Floor {
    uint64_t lineage = 0;
    uint64_t version = 0;
  };
  Floor FloorNow() const;
  // A version as it was read from all servers, asked for when FloorNow() was `floor`.
  struct Read {
    uint64_t lineage = 0;
    uint64_t version = 0;
    std::vector<float> ledger;
    std::vector<float> momentum;
    std::vector<float> buffer;  // empty: there is none
  };
  void CheckRead(const Read& read, const Floor& floor);
  // Where a server says it stands.
  void CheckStanding(const ShardHost::Standing& standing);

  // The newest.
  uint64_t lineage() const { return lineages_.empty() ? 0 : lineages_.rbegin()->first; }
  // Steps of all trainers that were acknowledged.
  uint64_t acknowledged() const { return acknowledged_; }

 private:
  // By trainer rank: which of its steps.
  using Contributions = std::map<int, uint64_t>;
  struct Lineage {
    uint64_t base = 0;
    std::map<uint64_t, Contributions> commits;  // by version
    Contributions asked;                        // the highest
    uint64_t promised = 0;                      // the highest version that was called durable
  };

  // Calls `see` for every version that is known of the history that ends with `version` of
  // `lineage`, backwards, while it returns true.
  void Walk(uint64_t lineage, uint64_t version,
            const std::function<bool(uint64_t version, const Contributions&)>& see) const;
  // Of every rank, the last step in that history that is known.
  Contributions Known(uint64_t lineage, uint64_t version) const;
  uint64_t HighestAsked(int rank, uint64_t lineage) const;
  void Note(int rank, uint64_t step, uint64_t lineage, uint64_t version);
  void CheckPromise(uint64_t lineage);
  // What every rank has in the ledger.
  std::optional<Contributions> Counts(const Read& read);
  void CheckCounts(const Read& read, const Contributions& counts);
  void CheckBits(const Read& read, const Contributions& counts);
  void Fail(absl::string_view kind, absl::string_view what) { simulation_->Fail(kind, what); }

  Simulation* const simulation_;
  const Workload workload_;
  const Durability durability_;
  std::map<uint64_t, Lineage> lineages_;
  uint64_t acknowledged_ = 0;
  std::map<int, uint64_t> newest_session_;  // by rank
  // By lineage and version.
  std::map<std::pair<uint64_t, uint64_t>, uint64_t> chains_;
  std::map<std::pair<uint64_t, uint64_t>, uint64_t> reads_;
  // The last that was computed, and of what.
  std::optional<Reference> reference_;
  std::vector<Contributions> computed_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_LEDGER_H_
