#include "shardstep/tests/bench/reference/textbook_store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/bench/reference/transfer_tensors.h"

namespace shardstep {

absl::Status CheckChunk(const bench::Chunk& chunk, int64_t tensors, int64_t bytes) {
  const auto size = static_cast<int64_t>(chunk.data().size());
  const bool inside = chunk.offset() >= 0 && size > 0 && size <= bytes - chunk.offset();
  const bool aligned = chunk.offset() % sizeof(float) == 0 && size % sizeof(float) == 0;
  if (chunk.tensor() >= 0 && chunk.tensor() < tensors && inside && aligned) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("no piece of a tensor: ", size, " bytes at ",
                                                 chunk.offset(), " of tensor ", chunk.tensor()));
}

TextbookStore::TextbookStore(const TransferWorkload& workload, bool sgd)
    : workload_(workload), sgd_(sgd), tensors_(workload.tensors) {
  TransferTensors parameters = InitialParameters(workload);
  for (size_t i = 0; i < parameters.size(); ++i) {
    MutexLock lock(&tensors_[i].mutex);
    tensors_[i].values = std::move(parameters[i]);
  }
}

absl::StatusOr<bool> TextbookStore::Take(const bench::Chunk& chunk) {
  SHARDSTEP_RETURN_IF_ERROR(CheckChunk(chunk, workload_.tensors, workload_.bytes));
  const auto size = static_cast<int64_t>(chunk.data().size());
  if (sgd_) {
    Tensor& tensor = tensors_[chunk.tensor()];
    MutexLock lock(&tensor.mutex);
    ApplySgd(chunk.data().data(), size / static_cast<int64_t>(sizeof(float)),
             tensor.values.data() + chunk.offset() / sizeof(float));
  }
  return chunk.offset() + size == workload_.bytes;
}

absl::Status TextbookStore::Fill(const bench::Request& request, int64_t offset,
                                 bench::Chunk* chunk) {
  if (request.tensor() < 0 || request.tensor() >= workload_.tensors) {
    return absl::OutOfRangeError(absl::StrCat("no tensor ", request.tensor()));
  }
  chunk->set_tensor(request.tensor());
  chunk->set_offset(offset);
  Tensor& tensor = tensors_[request.tensor()];
  MutexLock lock(&tensor.mutex);
  chunk->set_data(tensor.values.data() + offset / sizeof(float),
                  std::min(kTextbookChunkBytes, workload_.bytes - offset));
  return absl::OkStatus();
}

}  // namespace shardstep
