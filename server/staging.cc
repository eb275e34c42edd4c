#include "shardstep/server/staging.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/server/device.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {

Staging::Staging(uint64_t id, std::shared_ptr<const Layout> layout)
    : id_(id), layout_(std::move(layout)), coverage_(layout_->local.size()) {
  for (const LocalShardInfo& shard : layout_->local) missing_ += shard.elements;
}

absl::Status Staging::Add(uint64_t session, std::shared_ptr<Assembly> write) {
  if (HasWrite(session)) return absl::OkStatus();
  std::vector<IntervalSet> merged = coverage_;
  int64_t added = 0;
  for (size_t local = 0; local < merged.size(); ++local) {
    if (!merged[local].AddAll(write->coverage(local))) {
      const LocalShardInfo& shard = layout_->local[local];
      return absl::InvalidArgumentError(absl::StrCat(
          "parameter \"", layout_->parameters[shard.parameter].name, "\", shard ", shard.shard,
          ": session ", session, " wrote elements that another session wrote too"));
    }
    added += write->coverage(local).size();
  }
  coverage_ = std::move(merged);
  missing_ -= added;
  writes_.emplace(session, std::move(write));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<at::Tensor>> Staging::TakeValues(
    std::vector<MemoryBudget::Reservation>* reservations) {
  std::vector<at::Tensor> values;
  for (size_t local = 0; local < layout_->local.size(); ++local) {
    SHARDSTEP_ASSIGN_OR_RETURN(at::Tensor value, TakeValue(local));
    values.push_back(std::move(value));
  }
  for (auto& [session, write] : writes_) reservations->push_back(write->TakeReservation());
  writes_.clear();
  return values;
}

absl::StatusOr<at::Tensor> Staging::TakeValue(size_t local) {
  const LocalShardInfo& shard = layout_->local[local];
  for (auto& [session, write] : writes_) {
    if (shard.elements > 0 && write->coverage(local).size() == shard.elements) {
      return write->TakeBuffer(local);
    }
  }
  SHARDSTEP_ASSIGN_OR_RETURN(at::Tensor value, AllocateFlat(shard.dtype, shard.elements));
  const int64_t item = ItemSize(shard.dtype);
  for (auto& [session, write] : writes_) {
    const at::Tensor part = write->TakeBuffer(local);
    for (const auto& [begin, end] : write->coverage(local).map()) {
      std::memcpy(static_cast<char*>(value.data_ptr()) + begin * item,
                  static_cast<const char*>(part.data_ptr()) + begin * item, (end - begin) * item);
    }
  }
  return value;
}

}  // namespace shardstep
