// What a safetensors file of a state_dict says beside its tensors, in its header's metadata.
#ifndef SHARDSTEP_CLIENT_STATE_DICT_METADATA_H_
#define SHARDSTEP_CLIENT_STATE_DICT_METADATA_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "shardstep/optim/options/param_group.h"

namespace shardstep::internal {

// Empty, or 0: the file does not say.
struct StateDictMetadata {
  uint64_t version = 0;
  std::vector<ParamGroup> param_groups;
  std::map<int, std::string> trainer_states;
};

// With "format": "pt", which PyTorch's readers ask for.
std::map<std::string, std::string> ToText(const StateDictMetadata& metadata);
// INVALID_ARGUMENT, naming the key: text that ToText does not make. Other keys are ignored.
absl::StatusOr<StateDictMetadata> MetadataFromText(const std::map<std::string, std::string>& text);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_STATE_DICT_METADATA_H_
