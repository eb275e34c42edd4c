#include "shardstep/server/assembly.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/server/device.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

std::string Describe(const Layout& layout, const v1::Slice& slice) {
  std::string text =
      absl::StrCat("slice [", slice.offset(), ", +", slice.count(), ") of shard ", slice.shard());
  if (slice.shard() < layout.plan.shards.size()) {
    const int parameter = layout.plan.shards[slice.shard()].parameter;
    absl::StrAppend(&text, " of parameter \"", layout.parameters[parameter].name, "\"");
  }
  return text;
}

}  // namespace

Assembly::Assembly(std::shared_ptr<const Layout> layout, MemoryBudget* budget)
    : layout_(std::move(layout)),
      budget_(budget),
      buffers_(layout_->local.size()),
      coverage_(layout_->local.size()) {}

absl::Status Assembly::Apply(const FrameView& frame) {
  SHARDSTEP_RETURN_IF_ERROR(CheckSlices(frame));
  PayloadReader payload(frame);
  for (const v1::Slice& slice : frame.header.slices().slices()) {
    SHARDSTEP_RETURN_IF_ERROR(ApplySlice(slice, &payload));
  }
  ++frames_;
  digest_.Add(frame.crc32c);
  return absl::OkStatus();
}

absl::Status Assembly::ApplySlice(const v1::Slice& slice, PayloadReader* payload) {
  if (slice.shard() >= layout_->local_of.size()) {
    return absl::InvalidArgumentError(absl::StrCat(Describe(*layout_, slice), ": the plan has ",
                                                   layout_->local_of.size(), " shards"));
  }
  const int32_t local = layout_->local_of[slice.shard()];
  if (local < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        Describe(*layout_, slice), ": server ", layout_->server_rank, " does not own it, server ",
        layout_->plan.shards[slice.shard()].metadata.placement.server_rank, " does"));
  }
  const LocalShardInfo& info = layout_->local[local];
  const uint64_t elements = info.elements;
  if (slice.offset() > elements || slice.count() > elements - slice.offset()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Describe(*layout_, slice), ": the shard has ", elements, " elements"));
  }
  if (slice.tensor() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(Describe(*layout_, slice), ": tensor ", slice.tensor(), ", expected 0"));
  }
  if (static_cast<DType>(slice.dtype()) != info.dtype) {
    return absl::InvalidArgumentError(absl::StrCat(Describe(*layout_, slice), ": expected dtype ",
                                                   DTypeName(info.dtype), ", got ",
                                                   v1::DType_Name(slice.dtype())));
  }
  at::Tensor& buffer = buffers_[local];
  if (!buffer.defined() && slice.count() > 0) {
    if (!reservation_.Grow(budget_, info.bytes)) {
      return absl::ResourceExhaustedError(
          absl::StrCat(Describe(*layout_, slice), ": no memory for ", info.bytes, " bytes, ",
                       budget_->used(), " of ", budget_->limit(), " are in use"));
    }
    SHARDSTEP_ASSIGN_OR_RETURN(buffer, AllocateFlat(info.dtype, info.elements));
  }
  if (!coverage_[local].Add(slice.offset(), slice.offset() + slice.count())) {
    return absl::InvalidArgumentError(
        absl::StrCat(Describe(*layout_, slice), ": overlaps elements that arrived before"));
  }
  if (slice.count() == 0) return absl::OkStatus();
  char* to = static_cast<char*>(buffer.data_ptr()) + slice.offset() * ItemSize(info.dtype);
  const size_t bytes = slice.count() * ItemSize(info.dtype);
  if (slice.body() == v1::Slice::ZERO) {
    std::memset(to, 0, bytes);
  } else {
    payload->CopyTo(to, bytes);
  }
  return absl::OkStatus();
}

void Assembly::ZeroGaps() {
  for (size_t local = 0; local < buffers_.size(); ++local) {
    if (!buffers_[local].defined()) continue;
    const LocalShardInfo& info = layout_->local[local];
    char* data = static_cast<char*>(buffers_[local].data_ptr());
    const int64_t item = ItemSize(info.dtype);
    int64_t at = 0;
    for (const auto& [begin, end] : coverage_[local].map()) {
      std::memset(data + at * item, 0, (begin - at) * item);
      at = end;
    }
    std::memset(data + at * item, 0, (info.elements - at) * item);
  }
}

absl::Status Assembly::CheckEnd(uint64_t frames, uint64_t digest) const {
  if (frames != frames_) {
    return absl::DataLossError(
        absl::StrCat("the sender counted ", frames, " frames, ", frames_, " arrived"));
  }
  if (digest != digest_.value()) {
    return absl::DataLossError("the sender's digest differs from that of the frames that arrived");
  }
  return absl::OkStatus();
}

}  // namespace shardstep
