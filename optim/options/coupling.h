// How far the elements of a parameter depend on each other in a step, by optimizer: what its
// shardings may be, and how many sums over all shards it takes. Plain data, safe from any thread.
#ifndef SHARDSTEP_OPTIM_OPTIONS_COUPLING_H_
#define SHARDSTEP_OPTIM_OPTIONS_COUPLING_H_

#include "absl/strings/string_view.h"

namespace shardstep {

struct Coupling {
  enum class Cut {
    kAnywhere,
    kBetweenRows,  // the last dimension stays whole
    kNowhere,      // a parameter lies whole on one server
  };
  Cut cut = Cut::kAnywhere;
  // Rounds of sums over all shards between Prepare and Commit, each of which may need the totals of
  // those before. Where there are any, steps are not pipelined.
  int reduce_rounds = 0;
};

// Of a kind that CheckOptions knows; element-wise ones (and unknown ones) have none.
Coupling CouplingOf(absl::string_view kind);

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_OPTIONS_COUPLING_H_
