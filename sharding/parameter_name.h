// What may be a parameter's name: it stands in messages, logs and files as it is.
#ifndef SHARDSTEP_SHARDING_PARAMETER_NAME_H_
#define SHARDSTEP_SHARDING_PARAMETER_NAME_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace shardstep {

inline constexpr size_t kMaxNameBytes = 512;

// A name is valid UTF-8, without control characters, not empty and at most kMaxNameBytes long.
// INVALID_ARGUMENT, with the name escaped and the place, otherwise.
absl::Status ValidateName(absl::string_view parameter_name);

}  // namespace shardstep

#endif  // SHARDSTEP_SHARDING_PARAMETER_NAME_H_
