#include "shardstep/client/tensor_chunks.h"

#include <algorithm>
#include <utility>

namespace shardstep::internal {

TensorChunks::TensorChunks(Shape sizes, int64_t max_elements) : sizes_(std::move(sizes)) {
  elements_ = ElementCount(sizes_);
  if (sizes_.empty() || elements_ == 0) return;
  cut_ = sizes_.size() - 1;
  while (cut_ > 0 && inner_ * sizes_[cut_] <= max_elements) {
    inner_ *= sizes_[cut_];
    --cut_;
  }
  most_rows_ = std::max<int64_t>(1, max_elements / inner_);
}

int64_t TensorChunks::rows() const {
  if (sizes_.empty()) return 1;
  const int64_t row = offset_ / inner_ % sizes_[cut_];
  return std::min(most_rows_, sizes_[cut_] - row);
}

Region TensorChunks::region() const {
  Region region{Shape(sizes_.size(), 0), sizes_};
  int64_t index = offset_ / inner_;
  for (size_t i = cut_ + 1; i-- > 0 && !sizes_.empty();) {
    region.offsets[i] = index % sizes_[i];
    region.sizes[i] = i == cut_ ? rows() : 1;
    index /= sizes_[i];
  }
  return region;
}

}  // namespace shardstep::internal
