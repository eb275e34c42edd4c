// LoadFeed: the tensors of a LoadSource as slices of a staging's plan, a bounded part at a time.
#ifndef SHARDSTEP_CLIENT_LOAD_FEED_H_
#define SHARDSTEP_CLIENT_LOAD_FEED_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/client/load_source.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/client/state_dict.h"
#include "shardstep/client/tensor_chunks.h"
#include "shardstep/client/write_feed.h"

namespace shardstep::internal {

// INVALID_ARGUMENT: the tensor is of a parameter or state that `index` has, and is not of the sizes
// that it has there and of the parameter's dtype or master dtype, or is a scalar there and not one
// number here.
absl::Status CheckAgainst(const OptimizerIndex& index, const LoadSource::Tensor& tensor);

// Which of source.tensors() a load takes: a parameter's master instead of its value, where it has
// both. A master in the parameter's own dtype is none: torch.optim's load_state_dict made that of
// it, and steps there leave it as it is.
std::vector<bool> LoadedTensors(const OptimizerIndex& index, const LoadSource& source);

// Tensors of names that the plan does not have are left out.
class LoadFeed final : public WriteFeed {
 public:
  // Reads the scalars. `source` and `index` (of the staging) must outlive the feed. Errors as
  // CheckAgainst, and the source's.
  static absl::StatusOr<std::unique_ptr<LoadFeed>> Make(const LoadSource& source,
                                                        const OptimizerIndex& index,
                                                        int num_servers, Progress progress);

  void Rewind() override;
  absl::StatusOr<bool> Next(std::vector<std::vector<OutgoingSlice>>* slices) override;
  v1::Scalars ScalarsFor(int server_rank) const override { return scalars_[server_rank]; }

 private:
  // A tensor to write: which of the source, and as what.
  struct Item {
    size_t source = 0;
    int parameter = 0;
    uint32_t tensor = 0;  // v1.Slice.tensor
  };

  LoadFeed(const LoadSource& source, const OptimizerIndex& index, int num_servers,
           Progress progress);
  absl::Status AddScalar(const Item& item);

  const LoadSource& source_;
  const OptimizerIndex& index_;
  const Progress progress_;
  std::vector<Item> items_;
  std::vector<v1::Scalars> scalars_;  // by server rank
  uint64_t total_bytes_ = 0;

  size_t item_ = 0;
  std::optional<TensorChunks> chunks_;  // of items_[item_]
  uint64_t done_bytes_ = 0;
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_LOAD_FEED_H_
