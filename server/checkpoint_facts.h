// What a manifest says, between checkpoint/manifest.h and the message that servers exchange.
#ifndef SHARDSTEP_SERVER_CHECKPOINT_FACTS_H_
#define SHARDSTEP_SERVER_CHECKPOINT_FACTS_H_

#include "absl/status/statusor.h"
#include "shardstep/checkpoint/manifest.h"
#include "shardstep/checkpoint/reader.h"
#include "shardstep/v1/peer.pb.h"

namespace shardstep {

// INVALID_ARGUMENT: the description is not one. Pure functions.
absl::StatusOr<Manifest> ManifestFromFacts(const v1::CheckpointFacts& facts);
// With `tensors`: what the files have.
v1::CheckpointFacts FactsOf(const CheckpointReader& reader);

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_CHECKPOINT_FACTS_H_
