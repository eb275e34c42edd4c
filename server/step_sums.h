// Sums over all shards within a step: from what the servers say in one round of Reduce to the
// totals, and from the totals to what one server's shards asked for.
//
// Pure functions, safe from any thread. Parts are added in the order of the plan, whichever server
// they came from.
#ifndef SHARDSTEP_SERVER_STEP_SUMS_H_
#define SHARDSTEP_SERVER_STEP_SUMS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "shardstep/optim/shard_sums.h"
#include "shardstep/server/layout.h"
#include "shardstep/v1/peer.pb.h"

namespace shardstep {

// Values of one round: what a message of them and the log can hold.
inline constexpr int64_t kMaxSums = int64_t{8} << 20;

// `sums` by local shard, as the answer to a Reduce.
std::vector<v1::ShardSum> ShardSumsToProto(const Layout& layout,
                                           const std::vector<ShardSums>& sums);

// `answers` by server rank. INVALID_ARGUMENT: a sum of a shard that is not that server's, of an
// unknown extent, or with another number of values than the shard has rows, columns, ...;
// RESOURCE_EXHAUSTED: totals of more than kMaxSums values.
absl::StatusOr<v1::Totals> AddUp(const Layout& layout, const std::vector<v1::Reduced>& answers);

// `asked` with the totals in place of the shards' own parts. INVALID_ARGUMENT: `totals` lack one.
absl::StatusOr<std::vector<ShardSums>> TotalsFor(const Layout& layout,
                                                 const std::vector<ShardSums>& asked,
                                                 const v1::Totals& totals);

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_STEP_SUMS_H_
