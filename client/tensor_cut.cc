#include "shardstep/client/tensor_cut.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "shardstep/sharding/overlap.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/limits.h"

namespace shardstep::internal {
namespace {

// A piece costs about as much as copying so many bytes.
constexpr size_t kShortRunBytes = 256;
// Keeps the encoded header far below kMaxFrameHeaderBytes.
constexpr size_t kMaxSlicesPerFrame = 4096;

// Collects runs of one block and one shard into slices.
class Cutter {
 public:
  Cutter(int shard, uint32_t tensor, DType dtype, std::vector<OutgoingSlice>* out) : out_(out) {
    next_.shard = static_cast<uint32_t>(shard);
    next_.tensor = tensor;
    next_.dtype = dtype;
  }

  // `bytes`: where the run lies.
  void AddRun(uint64_t shard_offset, absl::string_view bytes) {
    const size_t item = static_cast<size_t>(ItemSize(next_.dtype));
    while (!bytes.empty()) {
      if (next_.count == 0 || shard_offset != next_.offset + next_.count) {
        Flush();
        next_.offset = shard_offset;
      }
      const size_t room = (kDefaultFramePayloadBytes - next_.bytes) / item * item;
      const absl::string_view piece = bytes.substr(0, room);
      next_.pieces.push_back(piece);
      next_.bytes += piece.size();
      next_.count += piece.size() / item;
      shard_offset += piece.size() / item;
      bytes.remove_prefix(piece.size());
      if (next_.bytes + item > kDefaultFramePayloadBytes) Flush();
    }
  }

  void AddZeros(uint64_t shard_offset, uint64_t count) {
    if (next_.count == 0 || shard_offset != next_.offset + next_.count) {
      Flush();
      next_.offset = shard_offset;
    }
    next_.zero = true;
    next_.count += count;
  }

  void Flush() {
    if (next_.count == 0) return;
    OutgoingSlice slice = std::move(next_);
    next_.count = 0;
    next_.bytes = 0;
    next_.pieces.clear();
    if (slice.pieces.size() > 1) GatherShort({}, &slice);
    out_->push_back(std::move(slice));
  }

 private:
  OutgoingSlice next_;
  std::vector<OutgoingSlice>* const out_;
};

}  // namespace

void CutBlock(const OptimizerIndex& index, int shard, uint32_t tensor, const Block& block,
              std::vector<OutgoingSlice>* out) {
  const Region shard_region = index.TensorRegion(shard, tensor);
  const std::optional<Region> part = Intersect(block.region, shard_region);
  if (!part) return;
  const int64_t item = ItemSize(block.view.dtype);
  const char* const data = static_cast<const char*>(block.view.data);
  Cutter cutter(shard, tensor, block.view.dtype, out);
  ForEachRun(*part, block.region, shard_region,
             [&](int64_t block_offset, int64_t shard_offset, int64_t count) {
               cutter.AddRun(static_cast<uint64_t>(shard_offset),
                             absl::string_view(data + block_offset * item,
                                               static_cast<size_t>(count * item)));
             });
  cutter.Flush();
}

void CutZeros(const OptimizerIndex& index, int shard, const Block& block,
              std::vector<OutgoingSlice>* out) {
  const Region shard_region = RegionOf(index.shard(shard).metadata);
  const std::optional<Region> part = Intersect(block.region, shard_region);
  if (!part) return;
  Cutter cutter(shard, /*tensor=*/0, block.view.dtype, out);
  ForEachRun(*part, block.region, shard_region,
             [&](int64_t /*block_offset*/, int64_t shard_offset, int64_t count) {
               cutter.AddZeros(static_cast<uint64_t>(shard_offset), static_cast<uint64_t>(count));
             });
  cutter.Flush();
}

void GatherShort(absl::string_view front, OutgoingSlice* slice) {
  const bool all = slice->bytes < kShortRunBytes * slice->pieces.size();
  if (front.empty() && !all) return;
  auto gathered = std::make_shared<std::string>();
  gathered->reserve(all ? slice->bytes : front.size());
  gathered->append(front.data(), front.size());
  if (all) {
    for (absl::string_view piece : slice->pieces) gathered->append(piece.data(), piece.size());
    slice->pieces.clear();
  }
  slice->pieces.insert(slice->pieces.begin(), absl::string_view(*gathered));
  slice->gathered = std::move(gathered);
}

OutgoingFrame TakeFrame(std::deque<OutgoingSlice>* waiting) {
  OutgoingFrame frame;
  size_t bytes = 0;
  while (!waiting->empty() && frame.slices.size() < kMaxSlicesPerFrame &&
         (frame.slices.empty() || bytes + waiting->front().bytes <= kDefaultFramePayloadBytes)) {
    bytes += waiting->front().bytes;
    frame.slices.push_back(std::move(waiting->front()));
    waiting->pop_front();
  }
  return frame;
}

v1::FrameHeader HeaderOf(const OutgoingFrame& frame) {
  v1::FrameHeader header;
  v1::Slices& slices = *header.mutable_slices();
  for (const OutgoingSlice& slice : frame.slices) {
    v1::Slice& out = *slices.add_slices();
    out.set_shard(slice.shard);
    out.set_offset(slice.offset);
    out.set_count(slice.count);
    out.set_dtype(DTypeToProto(slice.dtype));
    out.set_body(slice.rows ? v1::Slice::ROWS : slice.zero ? v1::Slice::ZERO : v1::Slice::DENSE);
    out.set_tensor(slice.tensor);
    out.set_row_elements(slice.row_elements);
  }
  return header;
}

std::vector<absl::string_view> PayloadOf(const OutgoingFrame& frame) {
  std::vector<absl::string_view> payload;
  for (const OutgoingSlice& slice : frame.slices) {
    payload.insert(payload.end(), slice.pieces.begin(), slice.pieces.end());
  }
  return payload;
}

}  // namespace shardstep::internal
