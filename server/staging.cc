#include "shardstep/server/staging.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/server/device.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {

Staging::Staging(uint64_t id, std::shared_ptr<const Layout> layout, const v1::StagedChange& change)
    : id_(id),
      layout_(std::move(layout)),
      checkpoint_id_(change.checkpoint_id()),
      keep_state_(change.keep_state()),
      keep_groups_(change.keep_groups()),
      num_tensors_(layout_->description.states_size() + 1),
      wanted_(layout_->local.size() * num_tensors_),
      coverage_(wanted_.size()) {}

absl::StatusOr<Staging> Staging::Make(uint64_t id, std::shared_ptr<const Layout> layout,
                                      const v1::StagedChange& change) {
  Staging staging(id, std::move(layout), change);
  std::vector<std::vector<size_t>> shards(staging.layout_->parameters.size());
  for (size_t local = 0; local < staging.layout_->local.size(); ++local) {
    shards[staging.layout_->local[local].parameter].push_back(local);
  }
  const auto want = [&staging](size_t local, uint32_t tensor) {
    staging.wanted_[staging.Slot(local, tensor)] = true;
    const LocalTensor info = staging.layout_->TensorOf(local, tensor);
    staging.missing_ += info.elements;
    staging.wanted_bytes_ += info.bytes;
  };
  for (const v1::StagedChange::Tensors& tensors : change.tensors()) {
    const uint32_t parameter = tensors.parameter();
    if (parameter >= shards.size()) {
      return absl::InvalidArgumentError(absl::StrCat("staging ", id, ": parameter ", parameter,
                                                     ", the optimizer has ", shards.size()));
    }
    for (const size_t local : shards[parameter]) {
      if (tensors.value()) want(local, 0);
    }
    for (const uint32_t tensor : tensors.states()) {
      if (tensor == 0 || tensor >= staging.num_tensors_) {
        return absl::InvalidArgumentError(absl::StrCat(
            "staging ", id, ": state ", tensor, ", the optimizer has ", staging.num_tensors_ - 1));
      }
      if (!staging.layout_->description.states(tensor - 1).scalar()) {
        for (const size_t local : shards[parameter]) want(local, tensor);
      } else if (!shards[parameter].empty()) {
        staging.wanted_scalars_.emplace(parameter, tensor);
      }
    }
  }
  staging.missing_scalars_ = staging.wanted_scalars_;
  return staging;
}

absl::Status Staging::Add(uint64_t session, std::shared_ptr<Assembly> write) {
  if (HasWrite(session)) return absl::OkStatus();
  std::vector<IntervalSet> merged = coverage_;
  int64_t added = 0;
  for (uint32_t tensor = 0; tensor < num_tensors_; ++tensor) {
    for (size_t local = 0; local < layout_->local.size(); ++local) {
      const IntervalSet& part = write->coverage(local, tensor);
      if (part.size() == 0) continue;
      const LocalShardInfo& shard = layout_->local[local];
      const char* problem = nullptr;
      if (!Wants(local, tensor)) problem = " is not wanted";
      if (!merged[Slot(local, tensor)].AddAll(part))
        problem = " was written by another session too";
      if (problem != nullptr) {
        return absl::InvalidArgumentError(absl::StrCat(
            "parameter \"", layout_->parameters[shard.parameter].name, "\", shard ", shard.shard,
            ", tensor ", tensor, ": what session ", session, " wrote", problem));
      }
      added += part.size();
    }
  }
  for (const auto& [key, value] : write->scalars()) {
    if (wanted_scalars_.count(key) > 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("parameter \"", layout_->parameters[key.first].name, "\": \"",
                     layout_->description.states(key.second - 1).name(), "\" is not wanted"));
  }
  for (const auto& [key, value] : write->scalars()) {
    scalars_[key] = value;
    missing_scalars_.erase(key);
  }
  coverage_ = std::move(merged);
  missing_ -= added;
  writes_.emplace(session, std::move(write));
  return absl::OkStatus();
}

absl::StatusOr<LocalState> Staging::Take(std::vector<MemoryBudget::Reservation>* reservations) {
  LocalState state;
  state.scalars.resize(layout_->parameters.size());
  for (size_t local = 0; local < layout_->local.size(); ++local) {
    LocalState::Shard& shard = state.shards.emplace_back();
    shard.parameter = layout_->local[local].parameter;
    if (Wants(local, 0)) {
      SHARDSTEP_ASSIGN_OR_RETURN(shard.value, TakeTensor(local, 0));
    }
    for (uint32_t tensor = 1; tensor < num_tensors_; ++tensor) {
      if (!Wants(local, tensor)) continue;
      SHARDSTEP_ASSIGN_OR_RETURN(at::Tensor value, TakeTensor(local, tensor));
      if (tensor == layout_->master) {
        shard.value = std::move(value);
        continue;
      }
      shard.states.push_back({layout_->description.states(tensor - 1).name(), std::move(value)});
    }
  }
  for (const auto& [key, value] : scalars_) {
    const v1::StateSpec& spec = layout_->description.states(key.second - 1);
    state.scalars[key.first].push_back({spec.name(), value, static_cast<DType>(spec.dtype())});
  }
  for (auto& [session, write] : writes_) reservations->push_back(write->TakeReservation());
  writes_.clear();
  return state;
}

absl::StatusOr<at::Tensor> Staging::TakeTensor(size_t local, uint32_t tensor) {
  const LocalTensor info = layout_->TensorOf(local, tensor);
  for (auto& [session, write] : writes_) {
    if (info.elements > 0 && write->coverage(local, tensor).size() == info.elements) {
      return write->TakeBuffer(local, tensor);
    }
  }
  SHARDSTEP_ASSIGN_OR_RETURN(at::Tensor value, AllocateFlat(info.dtype, info.elements));
  const int64_t item = ItemSize(info.dtype);
  for (auto& [session, write] : writes_) {
    const at::Tensor part = write->TakeBuffer(local, tensor);
    write->coverage(local, tensor).ForEach([&](int64_t begin, int64_t end) {
      std::memcpy(static_cast<char*>(value.data_ptr()) + begin * item,
                  static_cast<const char*>(part.data_ptr()) + begin * item, (end - begin) * item);
    });
  }
  return value;
}

}  // namespace shardstep
