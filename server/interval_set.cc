#include "shardstep/server/interval_set.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace shardstep {

bool IntervalSet::Add(int64_t begin, int64_t end) {
  if (begin >= end) return true;
  if (several_.empty()) {
    const int64_t single_end = begin_ + size_;
    if (size_ > 0 && begin < single_end && begin_ < end) return false;
    if (size_ == 0 || begin == single_end || end == begin_) {
      begin_ = size_ == 0 ? begin : std::min(begin, begin_);
      size_ += end - begin;
      return true;
    }
    several_.emplace(std::exchange(begin_, 0), single_end);
  }
  const bool added = AddToSeveral(begin, end);
  if (several_.size() == 1) {
    begin_ = several_.begin()->first;
    several_.clear();
  }
  return added;
}

bool IntervalSet::AddToSeveral(int64_t begin, int64_t end) {
  auto next = several_.lower_bound(begin);
  if (next != several_.end() && next->first < end) return false;
  auto previous = next == several_.begin() ? several_.end() : std::prev(next);
  if (previous != several_.end() && previous->second > begin) return false;
  size_ += end - begin;
  if (next != several_.end() && next->first == end) {
    end = next->second;
    several_.erase(next);
  }
  if (previous != several_.end() && previous->second == begin) {
    previous->second = end;
  } else {
    several_.emplace(begin, end);
  }
  return true;
}

bool IntervalSet::AddAll(const IntervalSet& other) {
  bool apart = true;
  other.ForEach([&](int64_t begin, int64_t end) { apart = apart && Add(begin, end); });
  return apart;
}

}  // namespace shardstep
