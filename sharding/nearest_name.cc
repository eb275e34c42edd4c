#include "shardstep/sharding/nearest_name.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace shardstep {
namespace {

// Far above a parameter's name, far below what would make one comparison slow.
constexpr size_t kMaxBytes = 1024;

// Most mistyped names share all but a few bytes with the right one.
void DropCommonEnds(absl::string_view* a, absl::string_view* b) {
  while (!a->empty() && !b->empty() && a->front() == b->front()) {
    a->remove_prefix(1);
    b->remove_prefix(1);
  }
  while (!a->empty() && !b->empty() && a->back() == b->back()) {
    a->remove_suffix(1);
    b->remove_suffix(1);
  }
}

// The edit distance, or limit + 1 if it is above `limit`. Only cells within `limit` of the diagonal
// can count, others stay at limit + 1. Takes the cells that it computes off `budget`.
int64_t Distance(absl::string_view a, absl::string_view b, int64_t limit, int64_t* budget) {
  const int64_t a_size = a.size();
  const int64_t b_size = b.size();
  const int64_t far = limit + 1;
  std::vector<int64_t> above(b_size + 1, far);
  std::vector<int64_t> row(b_size + 1, far);
  for (int64_t j = 0; j <= std::min(limit, b_size); ++j) above[j] = j;
  *budget -= b_size;
  for (int64_t i = 1; i <= a_size; ++i) {
    const int64_t first = std::max<int64_t>(1, i - limit);
    const int64_t last = std::min(b_size, i + limit);
    row[first - 1] = first == 1 ? std::min(i, far) : far;
    int64_t nearest = row[first - 1];
    for (int64_t j = first; j <= last; ++j) {
      const int64_t substituted = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({substituted, above[j] + 1, row[j - 1] + 1, far});
      nearest = std::min(nearest, row[j]);
    }
    *budget -= last - first + 1;
    if (nearest >= far || *budget <= 0) return far;
    std::swap(above, row);
  }
  return above[b_size];
}

}  // namespace

NearestNameSearch::NearestNameSearch(absl::string_view wanted)
    : wanted_(wanted), limit_(std::max<int64_t>(2, wanted.size() / 3)) {
  if (wanted.size() > kMaxBytes) limit_ = -1;
}

void NearestNameSearch::Consider(absl::string_view candidate) {
  absl::string_view a = wanted_;
  absl::string_view b = candidate;
  const int64_t difference =
      static_cast<int64_t>(std::max(a.size(), b.size()) - std::min(a.size(), b.size()));
  if (candidate.empty() || difference > limit_ || budget_ <= 0) return;
  DropCommonEnds(&a, &b);
  const int64_t distance = Distance(a, b, limit_, &budget_);
  if (distance > limit_) return;
  nearest_ = std::string(candidate);
  limit_ = distance - 1;
}

}  // namespace shardstep
