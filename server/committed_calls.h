// CommittedCalls: which Step calls of an optimizer's trainers were committed, and with what reply.
// The coordinator answers repeats from it; with durability "wal" its server keeps the same in log
// and bases, so that a coordinator that died finds it again.
#ifndef SHARDSTEP_SERVER_COMMITTED_CALLS_H_
#define SHARDSTEP_SERVER_COMMITTED_CALLS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "shardstep/v1/coordinator.pb.h"
#include "shardstep/v1/peer.pb.h"

namespace shardstep {

// The reply to the calls of a step.
v1::StepReply::Committed CommittedReply(uint64_t version, uint64_t lineage,
                                        const v1::Decision& decision, uint64_t durable_version);

// What a trainer rank's last committed Step was, whichever session made it. Never forgotten.
struct LastCommit {
  uint64_t session = 0;
  uint64_t call = 0;
  uint64_t version = 0;
  std::string trainer_state;
};

// Memory: per trainer rank its last commit, and of its newest session that committed something the
// newest kMaxRecorded replies that were not forgotten. Not thread-safe.
class CommittedCalls {
 public:
  static constexpr size_t kMaxRecorded = 64;

  struct Recorded {
    std::string fingerprint;  // of what was asked
    v1::StepReply::Committed reply;
  };

  // A Step was committed: its contribution says whose.
  void Note(const v1::Contribution& contribution, const v1::StepReply::Committed& reply);
  // The reply of a call, or null.
  const Recorded* Find(uint64_t session, uint64_t call) const;
  // Forgets the replies of calls below `first_live_call`.
  void Forget(uint64_t session, uint64_t first_live_call);
  const LastCommit& last(int trainer_rank) { return last_[trainer_rank]; }

  // What belongs to a version: the last commits, by trainer rank.
  std::vector<v1::TrainerState> TrainerStates() const;
  // A load: the trainers' states become these.
  void LoadTrainerStates(const std::vector<v1::TrainerState>& trainers);
  // A restore: the last commits do; recorded replies stay.
  void RestoreLast(const std::vector<v1::TrainerState>& trainers);

  void AddTo(v1::CoordinatorMemory* memory) const;
  static CommittedCalls Of(const v1::CoordinatorMemory& memory);

 private:
  std::map<int, LastCommit> last_;
  std::map<uint64_t, std::map<uint64_t, Recorded>> recorded_;  // by session, call
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_COMMITTED_CALLS_H_
