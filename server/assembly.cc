#include "shardstep/server/assembly.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/server/device.h"
#include "shardstep/sharding/half_floats.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

// What a chunk of rows takes beside its bytes, so that many small ones cannot exhaust a server.
constexpr int64_t kChunkOverhead = 512;

std::string Describe(const Layout& layout, const v1::Slice& slice) {
  std::string text = slice.body() == v1::Slice::ROWS
                         ? absl::StrCat(slice.count(), " rows of shard ", slice.shard())
                         : absl::StrCat("slice [", slice.offset(), ", +", slice.count(),
                                        ") of shard ", slice.shard());
  if (slice.shard() < layout.plan.shards.size()) {
    const int parameter = layout.plan.shards[slice.shard()].parameter;
    absl::StrAppend(&text, " of parameter \"", layout.parameters[parameter].name, "\"");
  }
  return text;
}

// Widens the next `count` elements of `payload`, which may straddle its pieces; fewer only where it
// ends before.
void WidenNext(PayloadReader* payload, DType from, uint64_t count, float* to) {
  const auto item = static_cast<size_t>(ItemSize(from));
  while (count > 0 && payload->remaining() >= item) {
    const absl::string_view part = payload->Take(count * item);
    const uint64_t whole = part.size() / item;
    Widen(from, part.data(), static_cast<int64_t>(whole), to);
    to += whole;
    count -= whole;
    const size_t rest = part.size() % item;
    if (rest == 0) continue;
    char straddling[sizeof(float)];
    std::memcpy(straddling, part.data() + whole * item, rest);
    payload->CopyTo(straddling + rest, item - rest);
    Widen(from, straddling, 1, to);
    ++to;
    --count;
  }
}

}  // namespace

Assembly::Assembly(std::shared_ptr<const Layout> layout, MemoryBudget* budget, Takes takes)
    : layout_(std::move(layout)),
      num_tensors_(takes == Takes::kParameters ? 1 : layout_->description.states_size() + 1),
      budget_(budget),
      buffers_(layout_->local.size() * num_tensors_),
      coverage_(buffers_.size()),
      rows_(layout_->local.size()),
      num_rows_(layout_->local.size()) {}

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

absl::Status Assembly::ApplyScalars(const FrameView& frame) {
  for (const v1::Scalars::Scalar& scalar : frame.header.scalars().scalars()) {
    const bool known = scalar.tensor() > 0 && scalar.tensor() < num_tensors_ &&
                       layout_->description.states(scalar.tensor() - 1).scalar();
    const auto [first, end] = layout_->LocalShardsOf(static_cast<int>(scalar.parameter()));
    const bool here = first < end;
    if (!known || !here) {
      return absl::InvalidArgumentError(absl::StrCat(
          "scalar ", scalar.tensor(), " of parameter ", scalar.parameter(), ": ",
          known ? "no shard of the parameter is on server " : "no such scalar; server ",
          layout_->server_rank));
    }
    scalars_[{scalar.parameter(), scalar.tensor()}] = scalar.value();
  }
  ++frames_;
  digest_.Add(frame.crc32c);
  return absl::OkStatus();
}

absl::StatusOr<char*> Assembly::Claim(size_t local, uint32_t tensor) {
  at::Tensor& buffer = buffers_[Slot(local, tensor)];
  SHARDSTEP_RETURN_IF_ERROR(Allocate(local, tensor, &buffer));
  coverage_[Slot(local, tensor)] = IntervalSet::Full(layout_->TensorOf(local, tensor).elements);
  return static_cast<char*>(buffer.data_ptr());
}

absl::Status Assembly::Reserve(const LocalShardInfo& shard, int64_t bytes) {
  if (reservation_.Grow(budget_, bytes)) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("parameter \"", layout_->parameters[shard.parameter].name, "\", shard ",
                   shard.shard, ": no memory for ", bytes, " bytes, ", budget_->used(), " of ",
                   budget_->limit(), " are in use"));
}

absl::Status Assembly::Allocate(size_t local, uint32_t tensor, at::Tensor* buffer) {
  const LocalTensor info = layout_->TensorOf(local, tensor);
  SHARDSTEP_RETURN_IF_ERROR(Reserve(layout_->local[local], info.bytes));
  SHARDSTEP_ASSIGN_OR_RETURN(*buffer, AllocateFlat(info.dtype, info.elements));
  return absl::OkStatus();
}

absl::Status Assembly::CheckSlice(const v1::Slice& slice) const {
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
  if (slice.tensor() >= num_tensors_) {
    return absl::InvalidArgumentError(absl::StrCat(Describe(*layout_, slice), ": tensor ",
                                                   slice.tensor(), ", expected at most ",
                                                   num_tensors_ - 1));
  }
  if (slice.tensor() > 0 && layout_->description.states(slice.tensor() - 1).scalar()) {
    return absl::InvalidArgumentError(absl::StrCat(
        Describe(*layout_, slice), ": \"", layout_->description.states(slice.tensor() - 1).name(),
        "\" is a scalar and has no slices"));
  }
  const LocalTensor info = layout_->TensorOf(local, slice.tensor());
  if (slice.body() != v1::Slice::ROWS) SHARDSTEP_RETURN_IF_ERROR(CheckRange(slice, info));
  const auto dtype = static_cast<DType>(slice.dtype());
  const DType declared = layout_->local[local].declared;
  if (dtype != info.dtype && dtype != declared) {
    return absl::InvalidArgumentError(
        absl::StrCat(Describe(*layout_, slice), ": expected dtype ", DTypeName(declared),
                     HasMaster(declared) ? absl::StrCat(" or ", DTypeName(info.dtype)) : "",
                     ", got ", v1::DType_Name(slice.dtype())));
  }
  return absl::OkStatus();
}

absl::Status Assembly::CheckRange(const v1::Slice& slice, const LocalTensor& tensor) const {
  const uint64_t elements = tensor.elements;
  if (slice.offset() <= elements && slice.count() <= elements - slice.offset()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(Describe(*layout_, slice), ": the shard has ", elements, " elements",
                   slice.tensor() == 0
                       ? ""
                       : absl::StrCat(" of \"", layout_->states[slice.tensor() - 1].name, "\"")));
}

absl::Status Assembly::CheckRows(const v1::Slice& slice, const LocalShardInfo& shard,
                                 PayloadReader payload) const {
  const auto refuse = [&](const auto&... words) {
    return absl::InvalidArgumentError(absl::StrCat(Describe(*layout_, slice), ": ", words...));
  };
  if (num_tensors_ != 1) return refuse("only gradients consist of rows");
  if (slice.offset() != 0) return refuse("expected offset 0, got ", slice.offset());
  if (slice.row_elements() != static_cast<uint64_t>(shard.row_elements)) {
    return refuse("expected rows of ", shard.row_elements, " elements, got ", slice.row_elements());
  }
  const int64_t before = num_rows_[layout_->local_of[slice.shard()]];
  if (slice.count() > static_cast<uint64_t>(shard.rows - before)) {
    return refuse("the shard has ", shard.rows, " rows, ", before,
                  " have come: sum those of one number before they are sent");
  }
  for (uint64_t i = 0; i < slice.count(); ++i) {
    int64_t row = 0;
    payload.CopyTo(&row, sizeof(row));
    if (row < 0 || row >= shard.rows) {
      return refuse("row ", row, ", the shard has ", shard.rows, " rows");
    }
  }
  return absl::OkStatus();
}

absl::Status Assembly::ApplyRows(const v1::Slice& slice, PayloadReader* payload) {
  const size_t local = layout_->local_of[slice.shard()];
  const LocalShardInfo& info = layout_->local[local];
  SHARDSTEP_RETURN_IF_ERROR(CheckRows(slice, info, *payload));
  if (slice.count() == 0) return absl::OkStatus();
  const auto count = static_cast<int64_t>(slice.count());
  const int64_t elements = count * info.row_elements;
  SHARDSTEP_RETURN_IF_ERROR(Reserve(info, count * static_cast<int64_t>(kRowNumberBytes) +
                                              elements * ItemSize(info.dtype) + kChunkOverhead));
  RowChunk chunk;
  SHARDSTEP_ASSIGN_OR_RETURN(chunk.rows, AllocateRowNumbers(count));
  SHARDSTEP_ASSIGN_OR_RETURN(chunk.elements, AllocateFlat(info.dtype, elements));
  payload->CopyTo(chunk.rows.data_ptr(), chunk.rows.nbytes());
  if (static_cast<DType>(slice.dtype()) != info.dtype) {
    WidenNext(payload, info.declared, elements, static_cast<float*>(chunk.elements.data_ptr()));
  } else {
    payload->CopyTo(chunk.elements.data_ptr(), chunk.elements.nbytes());
  }
  rows_[local].push_back(std::move(chunk));
  num_rows_[local] += count;
  return absl::OkStatus();
}

absl::Status Assembly::ApplySlice(const v1::Slice& slice, PayloadReader* payload) {
  SHARDSTEP_RETURN_IF_ERROR(CheckSlice(slice));
  if (slice.body() == v1::Slice::ROWS) return ApplyRows(slice, payload);
  const size_t local = layout_->local_of[slice.shard()];
  const LocalShardInfo& info = layout_->local[local];
  at::Tensor& buffer = buffers_[Slot(local, slice.tensor())];
  if (!buffer.defined() && slice.count() > 0) {
    SHARDSTEP_RETURN_IF_ERROR(Allocate(local, slice.tensor(), &buffer));
  }
  if (!coverage_[Slot(local, slice.tensor())].Add(slice.offset(), slice.offset() + slice.count())) {
    return absl::InvalidArgumentError(
        absl::StrCat(Describe(*layout_, slice), ": overlaps elements that arrived before"));
  }
  if (slice.count() == 0) return absl::OkStatus();
  const int64_t item = ItemSize(info.dtype);
  char* to = static_cast<char*>(buffer.data_ptr()) + slice.offset() * item;
  const size_t bytes = slice.count() * item;
  if (slice.body() == v1::Slice::ZERO) {
    std::memset(to, 0, bytes);
  } else if (static_cast<DType>(slice.dtype()) != info.dtype) {
    WidenNext(payload, info.declared, slice.count(), reinterpret_cast<float*>(to));
  } else {
    payload->CopyTo(to, bytes, layout_->local_bytes);
  }
  return absl::OkStatus();
}

void Assembly::ZeroGaps() {
  for (size_t slot = 0; slot < buffers_.size(); ++slot) {
    if (!buffers_[slot].defined()) continue;
    const LocalTensor info =
        layout_->TensorOf(slot % layout_->local.size(), slot / layout_->local.size());
    if (coverage_[slot].size() == info.elements) continue;
    char* data = static_cast<char*>(buffers_[slot].data_ptr());
    const int64_t item = ItemSize(info.dtype);
    int64_t at = 0;
    coverage_[slot].ForEach([&](int64_t begin, int64_t end) {
      std::memset(data + at * item, 0, (begin - at) * item);
      at = end;
    });
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
