// Probes: counts of rare events. A suite of runs that never saw one of them has not tested it.
#ifndef SHARDSTEP_TESTS_SIMULATION_PROBES_H_
#define SHARDSTEP_TESTS_SIMULATION_PROBES_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace shardstep {

// Not thread-safe.
class Probes {
 public:
  // All that there are, in order.
  static const std::vector<std::string>& Names();

  void Hit(absl::string_view name, uint64_t times = 1);
  void Add(const Probes& other);
  uint64_t count(const std::string& name) const;
  // Those of Names() that were never hit.
  std::vector<std::string> Missed() const;

 private:
  std::map<std::string, uint64_t> counts_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_PROBES_H_
