// IntervalSet: which elements of a shard have arrived.
#ifndef SHARDSTEP_SERVER_INTERVAL_SET_H_
#define SHARDSTEP_SERVER_INTERVAL_SET_H_

#include <cstddef>
#include <cstdint>
#include <map>

namespace shardstep {

// A set of integers as disjoint, non-touching intervals. Not thread-safe. Takes no memory of its
// own while it is a single interval, as nearly all are.
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
  size_t intervals() const { return several_.empty() ? (size_ > 0 ? 1 : 0) : several_.size(); }
  // Calls visit(begin, end) for each interval, ascending.
  template <typename Visit>
  void ForEach(const Visit& visit) const {
    if (several_.empty() && size_ > 0) visit(begin_, begin_ + size_);
    for (const auto& [begin, end] : several_) visit(begin, end);
  }

  friend bool operator==(const IntervalSet& a, const IntervalSet& b) {
    return a.size_ == b.size_ && a.begin_ == b.begin_ && a.several_ == b.several_;
  }
  friend bool operator!=(const IntervalSet& a, const IntervalSet& b) { return !(a == b); }

 private:
  bool AddToSeveral(int64_t begin, int64_t end);

  int64_t size_ = 0;
  int64_t begin_ = 0;                   // of a single interval, else 0
  std::map<int64_t, int64_t> several_;  // begin -> end, where there are two or more
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_INTERVAL_SET_H_
