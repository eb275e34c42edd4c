// Tensors cut into slices and slices packed into frames, without copying.
#ifndef SHARDSTEP_CLIENT_TENSOR_CUT_H_
#define SHARDSTEP_CLIENT_TENSOR_CUT_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/strings/string_view.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/v1/frame.pb.h"

namespace shardstep::internal {

// A range of one shard, or some rows of its gradient, at most a frame's payload long, and the
// memory that its bytes lie in.
struct OutgoingSlice {
  uint32_t shard = 0;
  uint32_t tensor = 0;
  uint64_t offset = 0;  // in elements of the shard
  uint64_t count = 0;
  DType dtype = DType::kInvalid;
  bool zero = false;  // no bytes: all elements are zero
  // `count` rows of so many elements: v1.Slice.ROWS.
  bool rows = false;
  uint64_t row_elements = 0;
  absl::InlinedVector<absl::string_view, 1> pieces;
  size_t bytes = 0;
  // Where short runs were gathered; `pieces` then points into it.
  std::shared_ptr<const std::string> gathered;
  // Keeps the memory of `pieces` alive, where whoever cut it does not.
  std::shared_ptr<const void> owner;
};

// Appends the slices that carry `block` to shard `shard` of the index: none if they do not meet.
// The slices refer to the block's memory; only runs shorter than 256 bytes on average are copied.
// `tensor` as in v1.Slice; the block lies in that tensor.
void CutBlock(const OptimizerIndex& index, int shard, uint32_t tensor, const Block& block,
              std::vector<OutgoingSlice>* out);

// The same for a block of zeros: `block.view.data` is not looked at.
void CutZeros(const OptimizerIndex& index, int shard, const Block& block,
              std::vector<OutgoingSlice>* out);

// Puts a copy of `front` before the pieces, and copies these too if they are shorter than 256 bytes
// on average. `slice->bytes` is that of both.
void GatherShort(absl::string_view front, OutgoingSlice* slice);

// Slices that go out in one message.
struct OutgoingFrame {
  std::vector<OutgoingSlice> slices;
  // Of the frame as it was first sent; 0 before.
  uint32_t crc32c = 0;
  bool sent = false;
};

// Takes as many slices from the front of `waiting`, at least one, as fit a frame of the default
// size.
OutgoingFrame TakeFrame(std::deque<OutgoingSlice>* waiting);

v1::FrameHeader HeaderOf(const OutgoingFrame& frame);
std::vector<absl::string_view> PayloadOf(const OutgoingFrame& frame);

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_TENSOR_CUT_H_
