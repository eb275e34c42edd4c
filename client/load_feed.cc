#include "shardstep/client/load_feed.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/options/state_spec.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep::internal {
namespace {

// 0: there is no such state.
uint32_t StateOf(const OptimizerIndex& index, const std::string& name) {
  const std::vector<StateSpec>& states = index.description().states;
  for (size_t i = 0; i < states.size(); ++i) {
    if (states[i].name == name) return static_cast<uint32_t>(i + 1);
  }
  return 0;
}

bool IsScalar(const OptimizerIndex& index, uint32_t tensor) {
  return tensor > 0 && index.description().states[tensor - 1].kind == StateSpec::Kind::kScalar;
}

template <typename T>
double NumberAs(absl::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(value));
  return static_cast<double>(value);
}

bool HoldsNumber(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kFloat64 || dtype == DType::kInt32 ||
         dtype == DType::kInt64;
}

double Number(DType dtype, absl::string_view bytes) {
  switch (dtype) {
    case DType::kFloat32:
      return NumberAs<float>(bytes);
    case DType::kInt32:
      return NumberAs<int32_t>(bytes);
    case DType::kInt64:
      return NumberAs<int64_t>(bytes);
    default:
      return NumberAs<double>(bytes);
  }
}

}  // namespace

absl::Status CheckAgainst(const OptimizerIndex& index, const LoadSource::Tensor& tensor) {
  if (!index.Has(tensor.parameter)) return absl::OkStatus();
  SHARDSTEP_ASSIGN_OR_RETURN(const int parameter, index.Find(tensor.parameter));
  const uint32_t state = StateOf(index, tensor.state);
  if (!tensor.state.empty() && state == 0) return absl::OkStatus();
  const auto refuse = [&tensor](const auto&... words) {
    return absl::InvalidArgumentError(
        absl::StrCat("parameter \"", tensor.parameter, "\"",
                     tensor.state.empty() ? "" : absl::StrCat(", state \"", tensor.state, "\""),
                     ": ", words...));
  };
  if (IsScalar(index, state)) {
    if (tensor.sizes.empty() && HoldsNumber(tensor.dtype)) return absl::OkStatus();
    return refuse("expected a number, got ", DTypeName(tensor.dtype), " of shape ",
                  ShapeToString(tensor.sizes));
  }
  const Shape sizes = index.TensorSizes(parameter, state);
  if (tensor.sizes != sizes) {
    return refuse("expected shape ", ShapeToString(sizes), ", got ", ShapeToString(tensor.sizes));
  }
  const DType declared = index.TensorDType(parameter, 0);
  const DType master = MasterDType(declared);
  if (tensor.dtype != declared && tensor.dtype != master) {
    return refuse("expected dtype ", DTypeName(declared),
                  master == declared ? "" : absl::StrCat(" or ", DTypeName(master)), ", got ",
                  DTypeName(tensor.dtype));
  }
  return absl::OkStatus();
}

std::vector<bool> LoadedTensors(const OptimizerIndex& index, const LoadSource& source) {
  const auto is_master = [&](const LoadSource::Tensor& tensor) {
    if (tensor.state != kMasterState || !index.Has(tensor.parameter)) return false;
    return HasMaster(index.parameters()[*index.Find(tensor.parameter)].dtype);
  };
  std::vector<bool> loaded;
  std::set<absl::string_view> have_master;  // parameters
  for (const LoadSource::Tensor& tensor : source.tensors()) {
    const bool master = is_master(tensor);
    loaded.push_back(!master || tensor.dtype == MasterDType(tensor.dtype));
    if (master && loaded.back()) have_master.insert(tensor.parameter);
  }
  for (size_t i = 0; i < loaded.size(); ++i) {
    const LoadSource::Tensor& tensor = source.tensors()[i];
    if (tensor.state.empty() && have_master.count(tensor.parameter) > 0) loaded[i] = false;
  }
  return loaded;
}

LoadFeed::LoadFeed(const LoadSource& source, const OptimizerIndex& index, int num_servers,
                   Progress progress)
    : source_(source), index_(index), progress_(std::move(progress)), scalars_(num_servers) {}

absl::StatusOr<std::unique_ptr<LoadFeed>> LoadFeed::Make(const LoadSource& source,
                                                         const OptimizerIndex& index,
                                                         int num_servers, Progress progress) {
  auto feed =
      std::unique_ptr<LoadFeed>(new LoadFeed(source, index, num_servers, std::move(progress)));
  const std::vector<bool> loaded = LoadedTensors(index, source);
  for (size_t i = 0; i < source.tensors().size(); ++i) {
    const LoadSource::Tensor& tensor = source.tensors()[i];
    if (!loaded[i] || !index.Has(tensor.parameter)) continue;
    SHARDSTEP_RETURN_IF_ERROR(CheckAgainst(index, tensor));
    Item item{i, *index.Find(tensor.parameter), StateOf(index, tensor.state)};
    if (!tensor.state.empty() && item.tensor == 0) continue;
    if (IsScalar(index, item.tensor)) {
      SHARDSTEP_RETURN_IF_ERROR(feed->AddScalar(item));
      continue;
    }
    SHARDSTEP_ASSIGN_OR_RETURN(const int64_t bytes, NumBytes(tensor.sizes, tensor.dtype));
    feed->total_bytes_ += static_cast<uint64_t>(bytes);
    feed->items_.push_back(item);
  }
  return feed;
}

absl::Status LoadFeed::AddScalar(const Item& item) {
  const DType dtype = source_.tensors()[item.source].dtype;
  std::shared_ptr<const void> owner;
  SHARDSTEP_ASSIGN_OR_RETURN(
      const absl::string_view bytes,
      source_.Read(item.source, 0, static_cast<uint64_t>(ItemSize(dtype)), &owner));
  const auto [first, end] = index_.ShardsOf(item.parameter);
  std::set<int> owners;
  for (int shard = first; shard < end; ++shard) {
    owners.insert(index_.shard(shard).metadata.placement.server_rank);
  }
  for (int server_rank : owners) {
    v1::Scalars::Scalar& scalar = *scalars_[server_rank].add_scalars();
    scalar.set_parameter(static_cast<uint32_t>(item.parameter));
    scalar.set_tensor(item.tensor);
    scalar.set_value(Number(dtype, bytes));
  }
  return absl::OkStatus();
}

void LoadFeed::Rewind() {
  item_ = 0;
  chunks_.reset();
  done_bytes_ = 0;
}

absl::StatusOr<bool> LoadFeed::Next(std::vector<std::vector<OutgoingSlice>>* slices) {
  while (item_ < items_.size()) {
    const Item& item = items_[item_];
    const LoadSource::Tensor& tensor = source_.tensors()[item.source];
    const int64_t item_size = ItemSize(tensor.dtype);
    if (!chunks_) {
      const uint64_t most = std::min<uint64_t>(source_.max_read_bytes() / item_size, INT64_MAX);
      chunks_.emplace(tensor.sizes, static_cast<int64_t>(most));
    }
    if (chunks_->done()) {
      chunks_.reset();
      ++item_;
      continue;
    }
    const uint64_t bytes = static_cast<uint64_t>(chunks_->elements() * item_size);
    std::shared_ptr<const void> owner;
    SHARDSTEP_ASSIGN_OR_RETURN(
        const absl::string_view read,
        source_.Read(item.source, static_cast<uint64_t>(chunks_->offset() * item_size), bytes,
                     &owner));
    const Region region = chunks_->region();
    // Blocks that are sent are only read.
    const Block block{region,
                      {const_cast<char*>(read.data()), tensor.dtype, ToShape(region.sizes)}};
    const auto [first, end] = index_.ShardsOf(item.parameter);
    for (int shard = first; shard < end; ++shard) {
      std::vector<OutgoingSlice>& out =
          (*slices)[index_.shard(shard).metadata.placement.server_rank];
      const size_t had = out.size();
      CutBlock(index_, shard, item.tensor, block, &out);
      for (size_t i = had; i < out.size(); ++i) out[i].owner = owner;
    }
    chunks_->Next();
    done_bytes_ += bytes;
    if (progress_) progress_(done_bytes_, total_bytes_);
    return true;
  }
  return false;
}

}  // namespace shardstep::internal
