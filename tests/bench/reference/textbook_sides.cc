#include "shardstep/tests/bench/reference/textbook_sides.h"

#include <algorithm>
#include <cstring>

#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/bench/reference/textbook_store.h"

namespace shardstep {

int64_t TextbookPush::Fill(int tensor, int64_t offset, Out* chunk) const {
  const int64_t size = std::min(kTextbookChunkBytes, stream_.bytes - offset);
  chunk->set_tensor(tensor);
  chunk->set_offset(offset);
  chunk->set_data((*stream_.values)[tensor].data() + offset / sizeof(float), size);
  return offset + size;
}

int64_t TextbookPull::Fill(int tensor, int64_t, Out* request) const {
  request->set_tensor(tensor);
  return stream_.bytes;
}

absl::StatusOr<int> TextbookPull::Take(const In& chunk) const {
  const auto tensors = static_cast<int64_t>(stream_.values->size());
  SHARDSTEP_RETURN_IF_ERROR(CheckChunk(chunk, tensors, stream_.bytes));
  const std::string& data = chunk.data();
  float* const to = (*stream_.values)[chunk.tensor()].data();
  std::memcpy(to + chunk.offset() / sizeof(float), data.data(), data.size());
  const bool last = chunk.offset() + static_cast<int64_t>(data.size()) == stream_.bytes;
  return last ? 1 : 0;
}

}  // namespace shardstep
