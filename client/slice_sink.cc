#include "shardstep/client/slice_sink.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"

namespace shardstep::internal {
namespace {

absl::Status Unexpected(int server_rank, absl::string_view what) {
  return absl::InternalError(absl::StrCat("server ", server_rank, " sent ", what));
}

absl::Status CheckState(const OptimizerIndex& index, uint32_t tensor) {
  const size_t states = index.description().states.size();
  if (tensor > 0 && tensor <= states) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("a server sent state ", tensor, ", of which there are ", states));
}

// Copies what `runs` want of the slice. Returns how many elements that were.
uint64_t CopySlice(const v1::Slice& slice, absl::Span<const ShardRun> runs, size_t item,
                   size_t together, PayloadReader* payload) {
  const uint64_t end = slice.offset() + slice.count();
  uint64_t position = slice.offset();
  uint64_t copied = 0;
  const bool zero = slice.body() == v1::Slice::ZERO;
  auto run = std::upper_bound(
      runs.begin(), runs.end(), position,
      [](uint64_t offset, const ShardRun& r) { return offset < r.shard_offset + r.count; });
  for (; run != runs.end() && run->shard_offset < end; ++run) {
    const uint64_t from = std::max(position, run->shard_offset);
    const uint64_t to = std::min(end, run->shard_offset + run->count);
    char* const memory = run->to + (from - run->shard_offset) * item;
    if (zero) {
      std::memset(memory, 0, (to - from) * item);
    } else {
      payload->Skip((from - position) * item);
      payload->CopyTo(memory, (to - from) * item, together);
    }
    copied += to - from;
    position = to;
  }
  if (!zero) payload->Skip((end - position) * item);
  return copied;
}

}  // namespace

absl::Status CheckSlice(const OptimizerIndex& index, int server_rank, const v1::Slice& slice) {
  if (slice.shard() >= static_cast<uint32_t>(index.num_shards())) {
    return Unexpected(server_rank, absl::StrCat("shard ", slice.shard(), ", which there is not"));
  }
  const PlannedShard& shard = index.shard(static_cast<int>(slice.shard()));
  if (shard.metadata.placement.server_rank != server_rank) {
    return Unexpected(server_rank,
                      absl::StrCat("shard ", slice.shard(), ", which is another server's"));
  }
  if (slice.tensor() != 0) SHARDSTEP_RETURN_IF_ERROR(CheckState(index, slice.tensor()));
  const uint64_t size =
      slice.tensor() == 0
          ? ElementCount(shard.metadata.sizes)
          : ElementCount(index.TensorRegion(static_cast<int>(slice.shard()), slice.tensor()).sizes);
  if (slice.offset() > size || slice.count() > size - slice.offset()) {
    return Unexpected(server_rank, absl::StrCat("a slice beyond shard ", slice.shard()));
  }
  if (slice.dtype() != DTypeToProto(index.TensorDType(shard.parameter, slice.tensor()))) {
    return Unexpected(server_rank, absl::StrCat("shard ", slice.shard(), " in another dtype"));
  }
  return absl::OkStatus();
}

BlockSink::BlockSink(std::shared_ptr<const OptimizerIndex> index)
    : index_(std::move(index)), targets_(index_->num_shards()) {}

void BlockSink::Add(int parameter, const std::vector<Block>& blocks) {
  const auto item = static_cast<size_t>(ItemSize(index_->parameters()[parameter].dtype));
  const auto [first, end] = index_->ShardsOf(parameter);
  for (int i = first; i < end; ++i) {
    const Region shard = RegionOf(index_->shard(i).metadata);
    Target& target = targets_[i];
    for (const Block& block : blocks) {
      const std::optional<Region> part = Intersect(shard, block.region);
      if (!part) continue;
      auto* const memory = static_cast<char*>(block.view.data);
      ForEachRun(
          *part, shard, block.region,
          [&](int64_t shard_offset, int64_t block_offset, int64_t count) {
            target.runs.push_back({static_cast<uint64_t>(shard_offset),
                                   static_cast<uint64_t>(count), memory + block_offset * item});
            target.wanted += count;
          });
    }
    std::sort(target.runs.begin(), target.runs.end(),
              [](const ShardRun& a, const ShardRun& b) { return a.shard_offset < b.shard_offset; });
    wanted_bytes_ += target.wanted * item;
    if (target.wanted > 0) servers_.insert(index_->shard(i).metadata.placement.server_rank);
  }
}

absl::Status BlockSink::Take(int server_rank, const v1::Slice& slice, PayloadReader* payload) {
  SHARDSTEP_RETURN_IF_ERROR(CheckSlice(*index_, server_rank, slice));
  if (slice.tensor() != 0) return Unexpected(server_rank, "state where parameters were asked for");
  const DType dtype = index_->parameters()[index_->shard(slice.shard()).parameter].dtype;
  Target& target = targets_[slice.shard()];
  target.copied +=
      CopySlice(slice, target.runs, static_cast<size_t>(ItemSize(dtype)), wanted_bytes_, payload);
  return absl::OkStatus();
}

absl::Status BlockSink::TakeScalar(const v1::Scalars::Scalar& /*scalar*/) {
  return absl::InternalError("a server sent scalars where parameters were asked for");
}

absl::Status BlockSink::Finish() {
  for (size_t shard = 0; shard < targets_.size(); ++shard) {
    const Target& target = targets_[shard];
    if (target.copied == target.wanted) continue;
    return Unexpected(
        index_->shard(static_cast<int>(shard)).metadata.placement.server_rank,
        absl::StrCat(target.copied, " of ", target.wanted, " elements of shard ", shard));
  }
  return absl::OkStatus();
}

absl::Status PresenceSink::Take(int server_rank, const v1::Slice& slice, PayloadReader* payload) {
  SHARDSTEP_RETURN_IF_ERROR(CheckSlice(*index_, server_rank, slice));
  const PlannedShard& shard = index_->shard(static_cast<int>(slice.shard()));
  const auto item =
      static_cast<size_t>(ItemSize(index_->TensorDType(shard.parameter, slice.tensor())));
  if (slice.body() != v1::Slice::ZERO) payload->Skip(slice.count() * item);
  MutexLock lock(&mutex_);
  found_.try_emplace({shard.parameter, slice.tensor()});
  return absl::OkStatus();
}

absl::Status PresenceSink::TakeScalar(const v1::Scalars::Scalar& scalar) {
  if (scalar.parameter() >= index_->parameters().size()) {
    return absl::InternalError(absl::StrCat("a server sent a scalar of parameter ",
                                            scalar.parameter(), ", which there is not"));
  }
  SHARDSTEP_RETURN_IF_ERROR(CheckState(*index_, scalar.tensor()));
  const Key key{static_cast<int>(scalar.parameter()), scalar.tensor()};
  MutexLock lock(&mutex_);
  const auto [entry, fresh] = found_.emplace(key, scalar.value());
  if (fresh) return absl::OkStatus();
  // The servers of one parameter all keep its scalars, and they are equal.
  const std::optional<double>& had = entry->second;
  if (had && (*had == scalar.value() || (std::isnan(*had) && std::isnan(scalar.value())))) {
    return absl::OkStatus();
  }
  return absl::InternalError(absl::StrCat("parameter \"", index_->parameters()[key.first].name,
                                          "\": servers sent different scalars"));
}

}  // namespace shardstep::internal
