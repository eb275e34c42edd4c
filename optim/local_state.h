// What one server holds of an optimizer: the values of its shards, and their states as torch.optim
// names them. Plain data made of handles: a copy of it copies no tensor (buffers.h). Not
// thread-safe.
#ifndef SHARDSTEP_OPTIM_LOCAL_STATE_H_
#define SHARDSTEP_OPTIM_LOCAL_STATE_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "shardstep/optim/options/state_spec.h"
#include "shardstep/sharding/dtype.h"
#include "shardstep/sharding/extent.h"
#include "shardstep/sharding/region.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {

// A state tensor of one shard, of its dtype, and of its shape or its part of the state's extent.
struct TensorState {
  std::string name;
  at::Tensor tensor;
};

// A state scalar of one parameter, exact in `dtype`.
struct ScalarState {
  std::string name;
  double value = 0;
  DType dtype = DType::kInvalid;
};

// The shards in the order given to LocalOptimizer::Create, each with its states in the order of
// their creation, and per parameter its scalars. A parameter without shards here has none, and
// neither has one that was not stepped yet, unless its optimizer HasStateAtStart.
struct LocalState {
  struct Shard {
    size_t parameter = 0;
    at::Tensor value;
    std::vector<TensorState> states;
  };
  std::vector<Shard> shards;
  std::vector<std::vector<ScalarState>> scalars;
};

// Null: there is none of this name. Valid until `states` changes.
const at::Tensor* FindState(const std::vector<TensorState>& states, absl::string_view name);

// Replaces the state of this name, or adds it.
void PutState(TensorState state, std::vector<TensorState>* states);

// The scalar, added with `initial` where it is missing. Valid until `scalars` grows.
ScalarState& FindOrAdd(const StateSpec& spec, double initial, std::vector<ScalarState>* scalars);

// The shape of a tensor state of the shard `value` that lies in `region` of its parameter.
Shape StateSizes(const at::Tensor& value, const Region& region, Extent extent);

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_LOCAL_STATE_H_
