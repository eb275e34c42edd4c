// Ballots (proto/shardstep/v1/peer.proto): order.
#ifndef SHARDSTEP_SERVER_BALLOT_H_
#define SHARDSTEP_SERVER_BALLOT_H_

#include <tuple>

#include "shardstep/v1/peer.pb.h"

namespace shardstep {

inline bool BallotLess(const v1::Ballot& a, const v1::Ballot& b) {
  return std::make_tuple(a.coordinator_incarnation(), a.attempt()) <
         std::make_tuple(b.coordinator_incarnation(), b.attempt());
}

inline bool SameBallot(const v1::Ballot& a, const v1::Ballot& b) {
  return a.coordinator_incarnation() == b.coordinator_incarnation() && a.attempt() == b.attempt();
}

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_BALLOT_H_
