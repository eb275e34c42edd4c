// Parameters as a user hands them over: a name with a whole tensor, or with the local shards of a
// ShardedTensor.
//
// Plain data that borrows: the memory of a view must stay where the call that takes it says so.
#ifndef SHARDSTEP_CLIENT_NAMED_TENSOR_H_
#define SHARDSTEP_CLIENT_NAMED_TENSOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "shardstep/optim/options/option_value.h"
#include "shardstep/sharding/shard_metadata.h"
#include "shardstep/sharding/sharding_spec.h"
#include "shardstep/sharding/tensor_view.h"

namespace shardstep {

// One block of a ShardedTensor that lies in this process. `metadata.placement` is not used: where
// the servers keep the parameter is its sharding spec's affair.
struct LocalShard {
  ShardMetadata metadata;
  // Has the sizes of `metadata`.
  TensorView view;
};

// A parameter: a whole tensor, or, if `local_shards` is not empty, a ShardedTensor of which this
// process gives and receives those blocks (then `value` is not used).
struct NamedTensor {
  // Fully qualified: "encoder.0.weight".
  std::string name;
  TensorView value;
  // How the servers cut the parameter; absent: the planner decides.
  std::optional<ShardingSpec> spec;
  // Of a float16 or bfloat16 parameter: the servers keep and step a float32 master, which rounded
  // is what a pull brings. False is refused: SGD's and RMSprop's bits would depend on the sharding.
  bool master = true;

  std::vector<LocalShard> local_shards;
  // The sizes of the whole ShardedTensor.
  Shape global_sizes;

  // Keeps what the views point to alive where nobody else does (a copy made contiguous). May be
  // null.
  std::shared_ptr<const void> owner;
};

// One of torch.optim's param_groups: parameters and the options in which they differ from the
// constructor's.
struct ParameterGroup {
  std::vector<NamedTensor> parameters;
  OptionMap options;
};

// What is known of a parameter without its values.
struct ParameterInfo {
  std::string name;
  DType dtype = DType::kInvalid;
  Shape sizes;
};

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_NAMED_TENSOR_H_
