// What an optimizer keeps per parameter. Plain data.
#ifndef SHARDSTEP_OPTIM_OPTIONS_STATE_SPEC_H_
#define SHARDSTEP_OPTIM_OPTIONS_STATE_SPEC_H_

#include <string>
#include <utility>

#include "shardstep/sharding/dtype.h"
#include "shardstep/sharding/extent.h"

namespace shardstep {

// One state entry, under torch.optim's name.
struct StateSpec {
  enum class Kind {
    kLikeParameter,  // a tensor of the parameter's master dtype, cut as it is
    kScalar,         // one number per parameter, however many shards that has; never sliced
  };

  std::string name;
  Kind kind = Kind::kLikeParameter;
  // Of a scalar; kInvalid else (it is the parameter's master dtype).
  DType dtype = DType::kInvalid;
  // Of a tensor: it has the parameter's shape, or is kept per row or column of it.
  Extent extent = Extent::kElement;

  static StateSpec Tensor(std::string name, Extent extent = Extent::kElement) {
    return {std::move(name), Kind::kLikeParameter, DType::kInvalid, extent};
  }
  // PyTorch keeps its scalars in float32 (in a process whose default dtype is that).
  static StateSpec Scalar(std::string name) {
    return {std::move(name), Kind::kScalar, DType::kFloat32};
  }
};

// The name under which the float32 masters of float16 and bfloat16 parameters travel with the
// state: in Description.states, state dicts and checkpoints. No optimizer's own state; on a server
// the master is the parameter's value.
inline constexpr char kMasterState[] = "master";

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_OPTIONS_STATE_SPEC_H_
