// SnapshotTable: the coordinator's snapshots of one optimizer: which versions are held for how many
// readers, until when.
#ifndef SHARDSTEP_SERVER_SNAPSHOTS_H_
#define SHARDSTEP_SERVER_SNAPSHOTS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "shardstep/optim/options/param_group.h"
#include "shardstep/server/clock.h"
#include "shardstep/server/layout.h"
#include "shardstep/v1/coordinator.pb.h"
#include "shardstep/wire/pages.h"

namespace shardstep {

// What is to be told of a held version beside its tensors.
struct SnapshotFacts {
  std::shared_ptr<const Layout> layout;
  std::shared_ptr<const std::vector<ParamGroup>> groups;
  // With EVERYTHING.
  std::vector<v1::TrainerState> trainers;
  // Of the whole description; made when it is asked for.
  std::optional<PagedMessage> pages;
};

// Confined to its coordinator's serializer.
class SnapshotTable {
 public:
  // Numbers given are above `id_base`; a coordinator that restarts passes a higher one.
  SnapshotTable(const Clock* clock, absl::Duration lease, uint64_t id_base);

  struct Snapshot {
    uint64_t version = 0;
    v1::SnapshotKind kind = v1::PARAMETERS;
    int readers = 0;
    absl::Time lease_end;
    SnapshotFacts facts;
  };

  absl::Duration lease() const { return lease_; }

  // A number for a hold that is about to be taken; it is no snapshot until Opened.
  uint64_t NextId() { return ++last_id_; }
  void Opened(uint64_t id, uint64_t version, v1::SnapshotKind kind, int readers,
              SnapshotFacts facts);
  // Null if there is no such snapshot (any more).
  Snapshot* Find(uint64_t id);
  // False if there is no such snapshot (any more).
  bool Renew(uint64_t id);
  // One reader has done. True if it was the last: the hold is to be released.
  bool Close(uint64_t id);
  // The snapshots whose lease ended, removed here and to be released. As with sessions, after a gap
  // in the ticks all get their full time again.
  std::vector<uint64_t> Expire();
  // Ends all; returns them.
  std::vector<uint64_t> Clear();
  size_t size() const { return open_.size(); }

 private:
  const Clock* const clock_;
  const absl::Duration lease_;
  uint64_t last_id_;
  absl::Time last_tick_;
  std::map<uint64_t, Snapshot> open_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_SNAPSHOTS_H_
