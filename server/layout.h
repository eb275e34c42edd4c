// Layout: an optimizer's definition and plan, indexed as one server needs them.
#ifndef SHARDSTEP_SERVER_LAYOUT_H_
#define SHARDSTEP_SERVER_LAYOUT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/optim/options/state_spec.h"
#include "shardstep/sharding/dtype.h"
#include "shardstep/sharding/plan.h"
#include "shardstep/sharding/region.h"
#include "shardstep/v1/definition.pb.h"

namespace shardstep {

// The server rank that coordinates every optimizer.
inline constexpr int kCoordinatorRank = 0;

// A shard that lives on this server.
struct LocalShardInfo {
  uint32_t shard = 0;  // position in the plan
  int parameter = 0;
  // What the parameter is declared and pulled as.
  DType declared = DType::kInvalid;
  // Of its memory here, values, gradients and state alike: the master dtype.
  DType dtype = DType::kInvalid;
  Region region;
  int64_t elements = 0;
  int64_t bytes = 0;  // of `dtype`
  // Along dimension 0, and elements in the others; a parameter without dimensions has no rows.
  int64_t rows = 0;
  int64_t row_elements = 0;
};

// What a server keeps of one tensor of such a shard: the parameter's value, or one of its states.
struct LocalTensor {
  DType dtype = DType::kInvalid;
  int64_t elements = 0;
  int64_t bytes = 0;
  // Other shards may keep the same elements (sharding/extent.h); this one gives them to readers and
  // into files. True too where there are no elements.
  bool speaks = true;
};

// Immutable once made, so it may be read from any thread.
struct Layout {
  v1::Description description;
  std::vector<ParameterShape> parameters;
  // Parameters that the sessions of a synchronous step give in regions, reduced by sum.
  std::vector<bool> sharded;
  absl::flat_hash_map<std::string, int> parameter_index;
  Plan plan;
  std::vector<StateSpec> states;
  int server_rank = 0;
  std::vector<LocalShardInfo> local;
  // By position in the plan: the position in `local`, or -1.
  std::vector<int32_t> local_of;
  int64_t local_bytes = 0;  // of the values
  // The parameters are not all of one (master) dtype.
  bool mixed_dtypes = false;
  // kMasterState's number in v1.Slice.tensor; 0: the description does not have it.
  uint32_t master = 0;

  // Tensors are numbered as in v1.Slice: 0 is the value, k is states[k - 1], which is no scalar.
  // `local` is a position in the list.
  LocalTensor TensorOf(size_t local, uint32_t tensor) const;
  // Where it lies in the tensor's own shape.
  Region TensorRegion(size_t local, uint32_t tensor) const;
  // What of it belongs to a region of the parameter.
  Region TensorPartOf(const Region& region, uint32_t tensor) const;
  // Its shape.
  Shape TensorSizes(int parameter, uint32_t tensor) const;
  // Where the parameter's shards lie in `local`, [first, end): they stand in the parameters' order.
  std::pair<size_t, size_t> LocalShardsOf(int parameter) const;
  // Position in `states`, counted from 1; 0: none of that name.
  uint32_t FindState(absl::string_view name) const;

  const std::string& name() const { return description.definition().name(); }

  // Checks everything: what it returns is consistent. INVALID_ARGUMENT names what is not.
  static absl::StatusOr<std::shared_ptr<const Layout>> Make(v1::Description description,
                                                            int server_rank);
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_LAYOUT_H_
