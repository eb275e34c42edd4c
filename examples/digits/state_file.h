// The tensors of a state_dict, as `shardctl state-dict` writes them: "model.<name>" and
// "optim.state.<name>.<state>", in a safetensors file. Plain data; reading blocks on the disk.
#ifndef SHARDSTEP_EXAMPLES_DIGITS_STATE_FILE_H_
#define SHARDSTEP_EXAMPLES_DIGITS_STATE_FILE_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/client/state_dict.h"

namespace shardstep {

using NamedTensors = std::map<std::string, HostTensor>;

// Everything that the safetensors file at `path` holds. Errors name the file.
absl::StatusOr<NamedTensors> ReadStateFile(const std::string& path);

// Whether both hold the same tensors, with the same bits. OK, or FAILED_PRECONDITION naming the
// first difference.
absl::Status CompareBits(const NamedTensors& a, const NamedTensors& b);

}  // namespace shardstep

#endif  // SHARDSTEP_EXAMPLES_DIGITS_STATE_FILE_H_
