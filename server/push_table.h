// PushTable: the gradients that sessions pushed to one server and that no step has consumed yet.
//
// A push is invisible until its End. It is soft state: it may be dropped at any time, Prepare then
// answers MISSING and the trainer, which still holds the gradient, pushes it again.
#ifndef SHARDSTEP_SERVER_PUSH_TABLE_H_
#define SHARDSTEP_SERVER_PUSH_TABLE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/server/layout.h"
#include "shardstep/server/memory_budget.h"
#include "shardstep/server/push.h"
#include "shardstep/server/push_checks.h"
#include "shardstep/v1/frame.pb.h"
#include "shardstep/v1/peer.pb.h"

namespace shardstep {

// Confined to its shard host's serializer.
class PushTable {
 public:
  // `budget` must outlive it and every push.
  explicit PushTable(MemoryBudget* budget) : budget_(budget) {}

  // The parameters that pushes are for; null: there is no optimizer, all pushes are dropped.
  void SetLayout(std::shared_ptr<const Layout> layout);
  // The same with parameters added behind those that there are: pushes stay.
  void ExtendLayout(std::shared_ptr<const Layout> layout);

  // Makes `announced` the live one of its trainer rank; an older one's pushes are dropped and
  // refused.
  void Announce(const v1::AnnounceSessions::Session& announced);

  // Opens a push. UNAVAILABLE if the session is not announced here yet, FAILED_PRECONDITION FENCED
  // if it is dead.
  absl::StatusOr<std::shared_ptr<Push>> Begin(const v1::Begin& begin);
  // Makes a push that arrived whole visible. INVALID_ARGUMENT if it does not cover what its session
  // declared of each parameter it touches, has rows of one that it does not say to consist of rows
  // or that sessions give in regions, or is a repeat with other bytes (SEQ_REUSE); DATA_LOSS if
  // frames are missing.
  absl::Status End(const std::shared_ptr<Push>& push, const v1::End& end);

  // The pushes of a contribution that were sent here, ascending; those that are not here are
  // appended to `missing`. INVALID_ARGUMENT if a push's weight is not the contribution's, or if the
  // contribution says other than the pushes what they touch of what this server owns.
  absl::StatusOr<std::vector<std::shared_ptr<const Push>>> Collect(
      const v1::Contribution& contribution, std::vector<v1::PushRange>* missing) const;
  // Forgets the pushes of session `number` below `sequence`.
  void DropBelow(uint64_t number, uint64_t sequence);

 private:
  struct Session {
    int trainer_rank = 0;
    bool dead = false;
    GivenRegions given;
    std::map<uint64_t, std::shared_ptr<Push>> pushes;
    // Pushes below it were consumed or dropped on purpose.
    uint64_t first_live = 1;
    // Digests of consumed pushes, so that a repeat with other bytes is seen; the newest
    // kRemembered.
    std::map<uint64_t, uint64_t> consumed;
  };

  // The pushes of the contribution that were to be sent here, ascending.
  std::vector<uint64_t> SentHere(const v1::Contribution& contribution) const;
  // RESOURCE_EXHAUSTED if a further push of `session` could keep a trainer rank that has none here
  // from pushing at all, so that a synchronous step never came about.
  absl::Status CheckReserve(const Session& session) const;
  // Of the session's pushes that are here, at most the range's first. For a mistake that tests
  // make.
  uint64_t FirstKept(const v1::PushRange& range) const;
  // The live session, or why not.
  absl::StatusOr<Session*> Find(uint64_t number);

  MemoryBudget* const budget_;
  std::shared_ptr<const Layout> layout_;
  // Earlier layouts that layout_ extends, whose pushes are taken.
  std::vector<std::shared_ptr<const Layout>> extended_;
  absl::flat_hash_map<uint64_t, Session> sessions_;
  absl::flat_hash_map<int, uint64_t> live_;  // trainer rank -> session
  uint64_t newest_ = 0;
  // A push had rows: pushes may take the rows' numbers besides local_bytes.
  bool by_rows_ = false;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_PUSH_TABLE_H_
