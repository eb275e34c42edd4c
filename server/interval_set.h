// IntervalSet: which elements of a shard have arrived.
#ifndef SHARDSTEP_SERVER_INTERVAL_SET_H_
#define SHARDSTEP_SERVER_INTERVAL_SET_H_

#include <cstddef>
#include <cstdint>
#include <map>

namespace shardstep {

// A set of integers as disjoint, non-touching intervals. Not thread-safe.
class IntervalSet {
 public:
  IntervalSet() = default;
  // [0, size).
  static IntervalSet Full(int64_t size) {
    IntervalSet set;
    set.Add(0, size);
    return set;
  }

  // Adds [begin, end). False, and nothing changes, if a part of it is in the set already. An empty
  // interval is added without effect.
  bool Add(int64_t begin, int64_t end);
  // Adds all of `other`; false, with a part of it perhaps added, if they overlap.
  bool AddAll(const IntervalSet& other);

  int64_t size() const { return size_; }
  size_t intervals() const { return intervals_.size(); }
  // Begin -> end, ascending.
  const std::map<int64_t, int64_t>& map() const { return intervals_; }

  friend bool operator==(const IntervalSet& a, const IntervalSet& b) {
    return a.size_ == b.size_ && a.intervals_ == b.intervals_;
  }
  friend bool operator!=(const IntervalSet& a, const IntervalSet& b) { return !(a == b); }

 private:
  std::map<int64_t, int64_t> intervals_;
  int64_t size_ = 0;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_INTERVAL_SET_H_
