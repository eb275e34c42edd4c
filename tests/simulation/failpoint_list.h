// The list of all failpoints: every place of the product where a test can make a fault happen
// (server/faults.h).
#ifndef SHARDSTEP_TESTS_SIMULATION_FAILPOINT_LIST_H_
#define SHARDSTEP_TESTS_SIMULATION_FAILPOINT_LIST_H_

#include <vector>

namespace shardstep {

struct Failpoint {
  enum class Where { kEveryServer, kCoordinator };
  const char* name;
  // An error can be told there.
  bool fallible;
  Where where;
  // Only steps that need sums over all shards come by.
  bool coupled = false;
};
// In order of their names.
const std::vector<Failpoint>& AllFailpoints();

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_FAILPOINT_LIST_H_
