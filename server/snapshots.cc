#include "shardstep/server/snapshots.h"

#include <utility>

namespace shardstep {

SnapshotTable::SnapshotTable(const Clock* clock, absl::Duration lease, uint64_t id_base)
    : clock_(clock), lease_(lease), last_id_(id_base), last_tick_(clock->Now()) {}

void SnapshotTable::Opened(uint64_t id, uint64_t version, v1::SnapshotKind kind, int readers,
                           SnapshotFacts facts) {
  open_[id] = {version, kind, readers, clock_->Now() + lease_, std::move(facts)};
}

SnapshotTable::Snapshot* SnapshotTable::Find(uint64_t id) {
  const auto found = open_.find(id);
  return found == open_.end() ? nullptr : &found->second;
}

bool SnapshotTable::Renew(uint64_t id) {
  auto found = open_.find(id);
  if (found == open_.end()) return false;
  found->second.lease_end = clock_->Now() + lease_;
  return true;
}

bool SnapshotTable::Close(uint64_t id) {
  auto found = open_.find(id);
  if (found == open_.end() || --found->second.readers > 0) return false;
  open_.erase(found);
  return true;
}

std::vector<uint64_t> SnapshotTable::Expire() {
  const absl::Time now = clock_->Now();
  if (now - last_tick_ > lease_ / 4) {
    for (auto& [id, snapshot] : open_) snapshot.lease_end = now + lease_;
  }
  last_tick_ = now;
  std::vector<uint64_t> expired;
  for (auto snapshot = open_.begin(); snapshot != open_.end();) {
    if (now >= snapshot->second.lease_end) {
      expired.push_back(snapshot->first);
      snapshot = open_.erase(snapshot);
    } else {
      ++snapshot;
    }
  }
  return expired;
}

std::vector<uint64_t> SnapshotTable::Clear() {
  std::vector<uint64_t> all;
  for (const auto& [id, snapshot] : open_) all.push_back(id);
  open_.clear();
  return all;
}

}  // namespace shardstep
