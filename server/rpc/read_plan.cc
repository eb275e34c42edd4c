#include "shardstep/server/rpc/read_plan.h"

#include <algorithm>
#include <utility>

#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "shardstep/optim/options/state_spec.h"
#include "shardstep/sharding/half_floats.h"
#include "shardstep/sharding/nearest_name.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/limits.h"

namespace shardstep {
namespace {

// Of one frame; so that a header stays well below kMaxFrameHeaderBytes.
constexpr int kMaxSlices = 4096;
constexpr size_t kMaxScalars = 4096;

std::string DidYouMean(const std::string& nearest) {
  return nearest.empty() ? std::string() : absl::StrCat("; did you mean \"", nearest, "\"");
}

// The block that `selector` asks for of a tensor of these sizes; nullopt: all of it.
absl::StatusOr<std::optional<Region>> BlockOf(const v1::TensorSelector& selector,
                                              const Shape& sizes) {
  if (selector.offsets().empty() && selector.sizes().empty()) return std::nullopt;
  v1::Region message;
  *message.mutable_offsets() = selector.offsets();
  *message.mutable_sizes() = selector.sizes();
  SHARDSTEP_ASSIGN_OR_RETURN(Region block, RegionFromProto(message));
  bool fits = block.sizes.size() == sizes.size();
  for (size_t i = 0; fits && i < sizes.size(); ++i) {
    fits = block.offsets[i] + block.sizes[i] <= sizes[i];
  }
  if (!fits) {
    return absl::InvalidArgumentError(absl::StrCat(
        "parameter \"", selector.parameter(), "\"",
        selector.state().empty() ? "" : absl::StrCat(", state \"", selector.state(), "\""),
        ": block at ", ShapeToString(block.offsets), " of ", ShapeToString(block.sizes),
        " does not fit its shape ", ShapeToString(sizes)));
  }
  return block;
}

}  // namespace

Runs::Runs(const Region& part, const Region& block) {
  int64_t stride = 1;
  bool contiguous = true;
  for (size_t i = part.sizes.size(); i-- > 0;) {
    first_ += (part.offsets[i] - block.offsets[i]) * stride;
    if (contiguous) {
      length_ *= part.sizes[i];
      contiguous = part.sizes[i] == block.sizes[i];
    } else {
      count_ *= part.sizes[i];
      sizes_.insert(sizes_.begin(), part.sizes[i]);
      strides_.insert(strides_.begin(), stride);
    }
    stride *= block.sizes[i];
  }
}

int64_t Runs::Offset(int64_t index) const {
  int64_t offset = first_;
  for (size_t i = sizes_.size(); i-- > 0;) {
    offset += index % sizes_[i] * strides_[i];
    index /= sizes_[i];
  }
  return offset;
}

absl::StatusOr<ReadPlan> ReadPlan::Make(std::shared_ptr<const HeldVersion> held,
                                        const v1::Selector& selector, uint64_t skip_bytes) {
  ReadPlan plan(std::move(held));
  const Layout& layout = *plan.held_->layout;
  if (selector.tensors().empty()) {
    SHARDSTEP_RETURN_IF_ERROR(plan.CheckKind(selector, ""));
    for (size_t i = 0; i < layout.parameters.size(); ++i) {
      plan.Add(selector, static_cast<int>(i), "", std::nullopt);
    }
  }
  for (const v1::TensorSelector& tensor : selector.tensors()) {
    SHARDSTEP_RETURN_IF_ERROR(plan.Select(selector, tensor));
  }
  for (const Item& item : plan.items_) plan.bytes_ += item.bytes();
  SHARDSTEP_RETURN_IF_ERROR(plan.Skip(skip_bytes));
  return plan;
}

absl::Status ReadPlan::CheckKind(const v1::Selector& selector, absl::string_view state) const {
  if (!selector.parameters() && !selector.state() && state.empty()) {
    return absl::InvalidArgumentError(
        "the selector names neither parameters nor state nor one state by name");
  }
  if ((selector.state() || !state.empty()) && held_->kind != v1::EVERYTHING) {
    return absl::FailedPreconditionError(absl::StrCat(
        "optimizer \"", held_->layout->name(),
        "\": the snapshot holds parameters alone; open one of everything to read state"));
  }
  return absl::OkStatus();
}

absl::Status ReadPlan::Select(const v1::Selector& selector, const v1::TensorSelector& tensor) {
  const Layout& layout = *held_->layout;
  const auto found = layout.parameter_index.find(tensor.parameter());
  if (found == layout.parameter_index.end()) {
    NearestNameSearch search(tensor.parameter());
    for (const ParameterShape& parameter : layout.parameters) search.Consider(parameter.name);
    return absl::NotFoundError(absl::StrCat("parameter \"", tensor.parameter(),
                                            "\": not in optimizer \"", layout.name(), "\"",
                                            DidYouMean(search.nearest())));
  }
  const uint32_t state = layout.FindState(tensor.state());
  if (!tensor.state().empty() && state == 0) {
    NearestNameSearch search(tensor.state());
    for (const v1::StateSpec& state : layout.description.states()) search.Consider(state.name());
    return absl::NotFoundError(absl::StrCat("state \"", tensor.state(), "\": not in optimizer \"",
                                            layout.name(), "\"", DidYouMean(search.nearest())));
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckKind(selector, tensor.state()));
  SHARDSTEP_ASSIGN_OR_RETURN(const std::optional<Region> block,
                             BlockOf(tensor, layout.TensorSizes(found->second, state)));
  Add(selector, found->second, tensor.state(), block);
  return absl::OkStatus();
}

void ReadPlan::Add(const v1::Selector& selector, int parameter, const std::string& state,
                   const std::optional<Region>& block) {
  const Layout& layout = *held_->layout;
  const bool values = state.empty() && selector.parameters();
  const auto wanted = [&](const std::string& name) {
    return state.empty() ? selector.state() : name == state;
  };
  const auto [first, end] = layout.LocalShardsOf(parameter);
  for (size_t index = first; index < end; ++index) {
    const LocalState::Shard& held = held_->state.shards[index];
    if (values) AddTensor(index, 0, held.value, block);
    for (const TensorState& tensor : held.states) {
      if (!wanted(tensor.name)) continue;
      const uint32_t number = layout.FindState(tensor.name);
      std::optional<Region> part = block;
      if (part.has_value() && state.empty()) part = layout.TensorPartOf(*part, number);
      AddTensor(index, number, tensor.tensor, part);
    }
    const bool master = HasMaster(layout.local[index].declared) && layout.master > 0;
    if (master && wanted(kMasterState)) {
      AddTensor(index, layout.master, held.value, block);
    }
  }
  const auto& scalars = held_->state.scalars;
  if (static_cast<size_t>(parameter) >= scalars.size()) return;
  for (const ScalarState& scalar : scalars[parameter]) {
    if (!wanted(scalar.name)) continue;
    v1::Scalars::Scalar& added = scalars_.emplace_back();
    added.set_parameter(parameter);
    added.set_tensor(layout.FindState(scalar.name));
    added.set_value(scalar.value);
  }
}

void ReadPlan::AddTensor(size_t local, uint32_t tensor, const at::Tensor& values,
                         const std::optional<Region>& block) {
  const Layout& layout = *held_->layout;
  const LocalTensor info = layout.TensorOf(local, tensor);
  if (!info.speaks) return;
  const Region region = layout.TensorRegion(local, tensor);
  std::optional<Region> part = Intersect(block.value_or(region), region);
  // A slice without elements tells that an empty parameter has the state, too.
  if (tensor != 0 && !block.has_value() && info.elements == 0) part = region;
  if (!part.has_value()) return;
  const LocalShardInfo& shard = layout.local[local];
  const DType dtype = tensor == 0 ? shard.declared : info.dtype;
  items_.push_back({shard.shard, tensor, dtype, ItemSize(dtype),
                    static_cast<const char*>(values.data_ptr()), dtype != info.dtype,
                    Runs(*part, region)});
}

absl::Status ReadPlan::Skip(uint64_t bytes) {
  if (bytes > bytes_) {
    return absl::InvalidArgumentError(
        absl::StrCat("skip_bytes ", bytes, ": the read has ", bytes_, " bytes of payload"));
  }
  bytes_ -= bytes;
  for (; bytes > 0 && bytes >= items_[item_].bytes(); ++item_) {
    bytes -= items_[item_].bytes();
  }
  if (bytes == 0) return absl::OkStatus();
  const Item& item = items_[item_];
  if (bytes % item.item_size != 0) {
    return absl::InvalidArgumentError("skip_bytes: ends inside an element");
  }
  const int64_t elements = bytes / item.item_size;
  run_ = elements / item.runs.length();
  position_ = elements % item.runs.length();
  return absl::OkStatus();
}

ReadPlan::Frame ReadPlan::Next() {
  if (phase_ == Phase::kBegin) {
    phase_ = Phase::kSlices;
    return BeginFrame();
  }
  if (phase_ == Phase::kSlices) {
    if (item_ < items_.size()) return SlicesFrame();
    phase_ = Phase::kScalars;
  }
  if (phase_ == Phase::kScalars) {
    if (scalar_ < scalars_.size()) return ScalarsFrame();
    phase_ = Phase::kEnd;
  }
  phase_ = Phase::kDone;
  return EndFrame();
}

ReadPlan::Frame ReadPlan::BeginFrame() const {
  v1::FrameHeader header;
  v1::ReadBegin* begin = header.mutable_read_begin();
  begin->set_version(held_->version);
  begin->set_lineage(held_->lineage);
  begin->set_plan_id(held_->layout->plan.plan_id);
  begin->set_bytes(bytes_);
  return {EncodeFramePrefix(header, {}), {}, nullptr};
}

ReadPlan::Frame ReadPlan::SlicesFrame() {
  v1::FrameHeader header;
  v1::Slices* slices = header.mutable_slices();
  std::vector<absl::string_view> payload;
  std::shared_ptr<char[]> rounded;
  int64_t room = kDefaultFramePayloadBytes;
  while (item_ < items_.size() && slices->slices_size() < kMaxSlices) {
    const Item& item = items_[item_];
    const int64_t count = std::min(item.runs.length() - position_, room / item.item_size);
    if (count == 0 && item.runs.length() > 0) break;
    const int64_t offset = item.runs.Offset(run_) + position_;
    v1::Slice* slice = slices->add_slices();
    slice->set_shard(item.shard);
    slice->set_offset(offset);
    slice->set_count(count);
    slice->set_dtype(DTypeToProto(item.dtype));
    slice->set_tensor(item.tensor);
    if (item.rounds) {
      // Of the default length, so that views stay while slices are added.
      if (rounded == nullptr) rounded.reset(new char[kDefaultFramePayloadBytes]);
      char* const to = rounded.get() + (kDefaultFramePayloadBytes - room);
      Narrow(item.dtype, reinterpret_cast<const float*>(item.data) + offset, count, to);
      payload.emplace_back(to, count * item.item_size);
    } else {
      payload.emplace_back(item.data + offset * item.item_size, count * item.item_size);
    }
    room -= count * item.item_size;
    position_ += count;
    if (position_ < item.runs.length()) break;  // the frame is full
    position_ = 0;
    if (++run_ < item.runs.count()) continue;
    run_ = 0;
    ++item_;
  }
  return Counted(header, std::move(payload), std::move(rounded));
}

ReadPlan::Frame ReadPlan::ScalarsFrame() {
  v1::FrameHeader header;
  const size_t end = std::min(scalar_ + kMaxScalars, scalars_.size());
  for (; scalar_ < end; ++scalar_) *header.mutable_scalars()->add_scalars() = scalars_[scalar_];
  return Counted(header, {});
}

ReadPlan::Frame ReadPlan::EndFrame() const {
  v1::FrameHeader header;
  header.mutable_read_end()->set_frames(frames_);
  header.mutable_read_end()->set_digest(digest_.value());
  return {EncodeFramePrefix(header, {}), {}, nullptr};
}

ReadPlan::Frame ReadPlan::Counted(const v1::FrameHeader& header,
                                  std::vector<absl::string_view> payload,
                                  std::shared_ptr<const char[]> rounded) {
  Frame frame{EncodeFramePrefix(header, payload), std::move(payload), std::move(rounded)};
  ++frames_;
  digest_.Add(frame.prefix.crc32c);
  return frame;
}

}  // namespace shardstep
