// A state_dict: parameters, optimizer state, groups and trainers' states of one version, and what
// goes into the calls that read and load it. Plain data.
#ifndef SHARDSTEP_CLIENT_STATE_DICT_H_
#define SHARDSTEP_CLIENT_STATE_DICT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "shardstep/optim/options/param_group.h"
#include "shardstep/sharding/region.h"
#include "shardstep/sharding/tensor_view.h"

namespace shardstep {

// A tensor with memory of its own, row-major.
struct HostTensor {
  DType dtype = DType::kInvalid;
  Shape sizes;
  std::vector<char> bytes;

  ConstTensorView view() const { return {bytes.data(), dtype, sizes}; }
};

// A tensor, or a scalar ("step"). The tensor has the parameter's shape, or, where it is kept per
// row or column, that with the last or the last but one dimension at 1.
using StateValue = std::variant<HostTensor, double>;

// What torch.optim's state_dict holds, with parameters and trainers' states beside it. Two that
// were read of one version are equal, byte for byte.
struct StateDict {
  // Where it was read; a load needs neither.
  uint64_t version = 0;
  uint64_t lineage = 0;
  // By name.
  std::map<std::string, HostTensor> parameters;
  // By parameter, then by state name. A parameter that was never stepped has none but its "master",
  // where its dtype is float16 or bfloat16: the values in float32, which a load takes instead of
  // those in `parameters`. Of such a parameter all state is float32, or, in what is loaded, of the
  // parameter's dtype.
  std::map<std::string, std::map<std::string, StateValue>> state;
  // With every option. `params` are names.
  std::vector<ParamGroup> param_groups;
  // What each trainer rank's last committed step carried (ShardedOptimizer::set_trainer_state).
  std::map<int, std::string> trainer_states;
};

// One parameter, of it one state, of that one block.
struct TensorPart {
  std::string parameter;
  // Only this state; empty: what the options' flags name.
  std::string state;
  // Only this block; absent: all of it. Of the state, in its own shape, where one is named; else of
  // the parameter, and of a state per row or column those that the block meets. Scalars are never
  // cut.
  std::optional<Region> region;
};

struct StateDictOptions {
  // Whether parameters' values, and optimizer state, are read. Groups always are; trainers' states
  // unless only parameters are.
  bool parameters = true;
  bool state = true;
  // Only these, each tensor in one of them at most; empty: all.
  std::vector<TensorPart> parts;
  // Wait for this version if it is not there yet; 0: at least the version of the handle's last
  // step.
  uint64_t at_least_version = 0;
  // For all of the read.
  absl::Duration timeout = absl::Minutes(10);
};

// One tensor of a state_dict, or the part of it that was asked for.
struct StateDictEntry {
  std::string parameter;
  std::string state;  // empty: the parameter's value
  DType dtype = DType::kInvalid;
  // Where it lies in the tensor; its sizes are the entry's. Without dimensions for a scalar.
  Region region;
  // The value of a scalar ("step"); it comes as a piece too, of its dtype.
  std::optional<double> scalar;
};

struct StateDictPiece {
  size_t entry = 0;     // in StateDictReader::entries()
  uint64_t offset = 0;  // in bytes, in the entry's own row-major order
  absl::string_view bytes;
};

// Called on the calling thread, now and then, with bytes done so far and bytes in all (0: not known
// yet).
using Progress = std::function<void(uint64_t done, uint64_t total)>;

struct SaveOptions {
  // Only the parameters' values, under their plain names, as safetensors.torch.save_model does.
  bool parameters_only = false;
  uint64_t at_least_version = 0;  // as StateDictOptions'
  absl::Duration timeout = absl::Hours(1);
  Progress progress;
};

struct SaveResult {
  uint64_t version = 0;
  uint64_t lineage = 0;
  uint64_t bytes = 0;  // of the tensors in it
};

// A state_dict in one safetensors file: keys `model.<name>` and `optim.state.<name>.<state>`, or
// parameters alone under their plain names. Groups come from the JSON file, a list of
// {"lr": 0.001, ..., "params": ["fc1.weight"]}, where one is named, else from the file's metadata
// (`shardstep.param_groups`), else the optimizer's stay.
struct SafetensorsSource {
  std::string path;
  std::string param_groups_json_path;
};

// A checkpoint of the optimizer, which the servers read themselves.
struct CheckpointSource {
  std::string id;
};

struct LoadOptions {
  // Names that the source lacks, and names that the optimizer has not, are an error.
  bool strict = true;
  absl::Duration timeout = absl::Hours(1);
  Progress progress;
};

struct LoadResult {
  uint64_t version = 0;
  uint64_t lineage = 0;
  // Where not strict, in the spelling of a safetensors file's keys: names that the source lacks,
  // names that the optimizer has not.
  std::vector<std::string> missing_keys;
  std::vector<std::string> unexpected_keys;
};

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_STATE_DICT_H_
