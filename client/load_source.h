// LoadSource: what LoadStateDict reads, in memory or in a file.
#ifndef SHARDSTEP_CLIENT_LOAD_SOURCE_H_
#define SHARDSTEP_CLIENT_LOAD_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/client/state_dict.h"
#include "shardstep/optim/options/param_group.h"
#include "shardstep/sharding/dtype.h"
#include "shardstep/sharding/shape.h"

namespace shardstep::internal {

// Immutable.
class LoadSource {
 public:
  struct Tensor {
    std::string parameter;
    std::string state;  // empty: the parameter's value
    DType dtype = DType::kInvalid;
    Shape sizes;  // none for a scalar
  };

  // Borrows `dict`. INVALID_ARGUMENT: a tensor whose bytes are not as many as its sizes say.
  static absl::StatusOr<std::unique_ptr<LoadSource>> Of(const StateDict& dict);
  // Opens the file. `index` tells plain parameter names from keys (see SafetensorsSource).
  // INVALID_ARGUMENT names what is wrong where.
  static absl::StatusOr<std::unique_ptr<LoadSource>> Open(const SafetensorsSource& source,
                                                          const OptimizerIndex& index);
  virtual ~LoadSource() = default;

  // Sorted by parameter, then by state.
  const std::vector<Tensor>& tensors() const { return tensors_; }
  const std::vector<ParamGroup>& param_groups() const { return param_groups_; }
  const std::map<int, std::string>& trainer_states() const { return trainer_states_; }
  uint64_t version() const { return version_; }

  // Bytes of tensors()[tensor], row-major. The view is valid while *owner lives, if that is set,
  // else while the source does.
  virtual absl::StatusOr<absl::string_view> Read(size_t tensor, uint64_t offset, uint64_t bytes,
                                                 std::shared_ptr<const void>* owner) const = 0;
  // So many bytes may be read at once without holding what is not yet held.
  virtual uint64_t max_read_bytes() const = 0;

 protected:
  std::vector<Tensor> tensors_;
  std::vector<ParamGroup> param_groups_;
  std::map<int, std::string> trainer_states_;
  uint64_t version_ = 0;
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_LOAD_SOURCE_H_
