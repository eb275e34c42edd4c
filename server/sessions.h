// SessionTable: the coordinator's sessions of one optimizer: who is live for each trainer rank, and
// whose lease lapsed.
#ifndef SHARDSTEP_SERVER_SESSIONS_H_
#define SHARDSTEP_SERVER_SESSIONS_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/server/clock.h"
#include "shardstep/v1/coordinator.pb.h"
#include "shardstep/v1/peer.pb.h"

namespace shardstep {

inline constexpr int kMaxTrainerRanks = 1024;

// A trainer rank's live session. The numbers of older ones are dead: any number that is not a live
// one is fenced.
struct Session {
  uint64_t number = 0;
  int trainer_rank = 0;
  std::string instance;
  std::vector<v1::DeclaredRegion> regions;
  bool announced = false;
  bool closed = false;
  // Servers that have not said since that they know it: until then it is not open.
  std::set<int> unaware;

  absl::Time last_seen;
  absl::Time lease_end;

  // The Step that may come next; lower ones are open, answered or failed for good.
  uint64_t next_call = 1;
};

// Confined to its coordinator's serializer. Leases are judged by `clock` alone, and only while Tick
// is called: after a gap in the ticks above a quarter of the lease, all get their full time again,
// so that a pause of the coordinator expels nobody.
class SessionTable {
 public:
  // `number_base`: numbers given are above it; a coordinator that restarts passes a higher one.
  SessionTable(const Clock* clock, absl::Duration lease, uint64_t number_base);

  absl::Duration lease() const { return lease_; }

  // The live session of `trainer_rank` for `instance`: the same one if it has it, else a new one
  // that replaces what was live. `replaced` gets the number of the session that is fenced by this,
  // or 0. INVALID_ARGUMENT: rank out of range, no instance.
  absl::StatusOr<Session*> Open(int trainer_rank, const std::string& instance,
                                std::vector<v1::DeclaredRegion> regions, uint64_t* replaced);
  // Whether `instance` had the rank before another took it: a call of it that comes late.
  bool WasReplaced(int trainer_rank, const std::string& instance) const;
  // The live session of that number, or null: it is fenced, closed, or never was.
  Session* Find(uint64_t number);
  // The live session of a trainer rank, or null.
  Session* OfRank(int trainer_rank);

  // Heard of it: its lease starts again.
  void Renew(Session* session);
  bool Lapsed(const Session& session) const { return Now() >= session.lease_end; }
  void Tick();
  // Gives every session its full lease again.
  void RenewAll();

  // After a restart: the live sessions as they were announced, with full leases, and the highest
  // number that was ever given.
  void Recover(const std::vector<v1::AnnounceSessions::Session>& announced);
  // A restore: numbers up to `last_session` are never given again.
  void RaiseLastNumber(uint64_t last_session);
  // The highest that was given.
  uint64_t last_number() const { return last_number_; }

  // By trainer rank.
  const std::map<int, Session>& live() const { return live_; }

 private:
  absl::Time Now() const;

  const Clock* const clock_;
  const absl::Duration lease_;
  uint64_t last_number_;
  absl::Time last_tick_;
  std::map<int, Session> live_;
  absl::flat_hash_map<uint64_t, int> rank_of_;       // of those, by number
  std::map<int, std::deque<std::string>> replaced_;  // instances, the newest last
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_SESSIONS_H_
