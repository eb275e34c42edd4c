#include "shardstep/server/interval_set.h"

#include <iterator>

namespace shardstep {

bool IntervalSet::Add(int64_t begin, int64_t end) {
  if (begin >= end) return true;
  auto next = intervals_.lower_bound(begin);
  if (next != intervals_.end() && next->first < end) return false;
  auto previous = next == intervals_.begin() ? intervals_.end() : std::prev(next);
  if (previous != intervals_.end() && previous->second > begin) return false;
  size_ += end - begin;
  if (next != intervals_.end() && next->first == end) {
    end = next->second;
    intervals_.erase(next);
  }
  if (previous != intervals_.end() && previous->second == begin) {
    previous->second = end;
  } else {
    intervals_.emplace(begin, end);
  }
  return true;
}

bool IntervalSet::AddAll(const IntervalSet& other) {
  for (const auto& [begin, end] : other.intervals_) {
    if (!Add(begin, end)) return false;
  }
  return true;
}

}  // namespace shardstep
