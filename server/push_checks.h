// Whether pushes are what they, and the steps that consume them, say. Thread-safe.
#ifndef SHARDSTEP_SERVER_PUSH_CHECKS_H_
#define SHARDSTEP_SERVER_PUSH_CHECKS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "shardstep/server/layout.h"
#include "shardstep/server/push.h"
#include "shardstep/sharding/region.h"
#include "shardstep/v1/peer.pb.h"

namespace shardstep {

// What a session gives of the parameters that sessions give in regions, by parameter name.
using GivenRegions = absl::flat_hash_map<std::string, std::vector<Region>>;

// As `declared`, which the coordinator has checked; a region that does not parse gives nothing.
GivenRegions GivenBy(const v1::AnnounceSessions::Session& declared);

// Of a push that arrived whole. INVALID_ARGUMENT: it says to consist of rows of a parameter that it
// does not touch, that has none, or that sessions give in regions; or it has rows of one that it
// does not say to consist of rows.
absl::Status CheckRows(const Push& push);

// Of a push that arrived whole, whose session gives `given`. INVALID_ARGUMENT: it touches a
// parameter that there is not, covers less or more than all that its session gives of one that it
// touches, or has elements of another.
absl::Status CheckCoverage(const Push& push, const GivenRegions& given);

// Of a contribution whose pushes went only to servers that own some of what they touch; `pushes`
// are those that came here. INVALID_ARGUMENT: it says other than they do what they touch of what
// this server owns, or one went past a server that owns some of what it touches.
absl::Status CheckPartial(const v1::Contribution& contribution,
                          absl::Span<const std::shared_ptr<const Push>> pushes,
                          const Layout& layout);

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_PUSH_CHECKS_H_
