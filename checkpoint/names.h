// The names of checkpoints, of their files and of the tensors in them. Pure functions, safe from
// any thread.
#ifndef SHARDSTEP_CHECKPOINT_NAMES_H_
#define SHARDSTEP_CHECKPOINT_NAMES_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shardstep {

// As an optimizer's name: [A-Za-z0-9._-]{1,128}, not beginning with a dot. INVALID_ARGUMENT else.
absl::Status ValidateCheckpointId(absl::string_view id);

// "<lineage ordinal>-<version>".
std::string DefaultCheckpointId(uint64_t lineage_ordinal, uint64_t version);

// "shard-00001-of-00003.safetensors": file 1, counted from 0, of 3.
std::string ShardFileName(size_t file, size_t files);

// "model.<parameter>".
std::string ParameterKey(absl::string_view parameter);
// "optim.state.<parameter>.<state name>".
std::string StateKey(absl::string_view parameter, absl::string_view state);

// A key taken apart; the views are into it. `state` is empty for a parameter's values.
struct TensorKey {
  absl::string_view parameter;
  absl::string_view state;
};
// INVALID_ARGUMENT: neither of the two forms.
absl::StatusOr<TensorKey> ParseKey(absl::string_view key);

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_NAMES_H_
