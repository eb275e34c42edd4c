// The name that somebody probably meant, for `did you mean "fc1.weight"`.
#ifndef SHARDSTEP_SHARDING_NEAREST_NAME_H_
#define SHARDSTEP_SHARDING_NEAREST_NAME_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace shardstep {

// Looks at one candidate after the other and keeps the nearest by edit distance in bytes. Not
// thread-safe. Use NearestName unless the candidates are no range.
class NearestNameSearch {
 public:
  // `wanted` must outlive the search.
  explicit NearestNameSearch(absl::string_view wanted);

  void Consider(absl::string_view candidate);

  // The nearest candidate so far (of equals the first); empty if none is near.
  const std::string& nearest() const { return nearest_; }

 private:
  absl::string_view wanted_;
  // A candidate further away than this is not near, or not nearer than nearest_.
  int64_t limit_;
  // Bounds the whole search, whatever the names: table cells that may still be computed.
  int64_t budget_ = 20'000'000;
  std::string nearest_;
};

// Returns the nearest of `candidates`, a range of strings, if its distance from `wanted` is at most
// the larger of 2 and a third of wanted's length; otherwise, or if `wanted` is longer than any name
// can be, an empty string. Takes at most about 0.1 s, whatever the candidates: after that it goes
// by what it has seen.
template <typename Strings>
std::string NearestName(absl::string_view wanted, const Strings& candidates) {
  NearestNameSearch search(wanted);
  for (const auto& candidate : candidates) search.Consider(candidate);
  return search.nearest();
}

}  // namespace shardstep

#endif  // SHARDSTEP_SHARDING_NEAREST_NAME_H_
