// An optimizer's parameters and shards by name and number.
#ifndef SHARDSTEP_CLIENT_OPTIMIZER_INDEX_H_
#define SHARDSTEP_CLIENT_OPTIMIZER_INDEX_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "shardstep/client/named_tensor.h"
#include "shardstep/sharding/region.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep::internal {

// A user's block of a parameter: where it lies in the parameter, and its memory.
struct Block {
  Region region;
  TensorView view;
};

// Immutable, so thread-safe. Parameters and shards are named by position, as in the description.
class OptimizerIndex {
 public:
  // `description` is one that DescriptionFromProto accepted.
  explicit OptimizerIndex(OptimizerDescription description);

  const OptimizerDescription& description() const { return description_; }
  const std::string& name() const { return description_.definition.name; }
  const std::string& plan_id() const { return description_.plan.plan_id; }
  const std::vector<ParameterInfo>& parameters() const { return parameters_; }

  // NOT_FOUND: parameter "fc1.wieght": not in optimizer "digits"; did you mean "fc1.weight".
  absl::StatusOr<int> Find(absl::string_view parameter_name) const;

  bool Has(absl::string_view parameter_name) const { return by_name_.contains(parameter_name); }

  // First and last + 1 of the parameter's shards.
  std::pair<int, int> ShardsOf(int parameter) const;
  const PlannedShard& shard(int shard) const { return description_.plan.shards[shard]; }
  int num_shards() const { return static_cast<int>(description_.plan.shards.size()); }

  // Tensors are numbered as in v1.Slice: 0 is the value, k is description().states[k - 1], which is
  // no scalar.
  DType TensorDType(int parameter, uint32_t tensor) const;
  Shape TensorSizes(int parameter, uint32_t tensor) const;
  // Where a shard's part of it lies in that shape.
  Region TensorRegion(int shard, uint32_t tensor) const;
  // The part of it that belongs to a region of the parameter.
  Region TensorPartOf(const Region& region, uint32_t tensor) const;

  // The blocks that `tensor` holds of `parameter`: one, the whole, or its local shards.
  // INVALID_ARGUMENT: other sizes or dtype than the parameter's, a view that does not fit its
  // metadata, local shards outside the parameter or on top of each other.
  absl::StatusOr<std::vector<Block>> BlocksOf(int parameter, const NamedTensor& tensor) const;
  // The same of a gradient: `views` for `regions`, one each, of the parameter's dtype or of its
  // master dtype.
  absl::StatusOr<std::vector<Block>> BlocksOf(int parameter, absl::Span<const Region> regions,
                                              absl::Span<const ConstTensorView> views) const;

 private:
  const OptimizerDescription description_;
  std::vector<ParameterInfo> parameters_;
  std::vector<int> first_shard_;  // one more than parameters
  absl::flat_hash_map<std::string, int> by_name_;
};

// The whole of a tensor of `sizes`.
Region WholeRegion(const Shape& sizes);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_OPTIMIZER_INDEX_H_
