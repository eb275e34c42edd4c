#include "shardstep/client/state_dict_stream.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "shardstep/client/state_read.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep::internal {
namespace {

constexpr size_t kZeroBytes = 64 << 10;

absl::string_view Zeros(uint64_t bytes) {
  static constexpr char kZeros[kZeroBytes] = {};
  return absl::string_view(kZeros, static_cast<size_t>(std::min<uint64_t>(bytes, kZeroBytes)));
}

// Servers that own shards of these parameters.
std::set<int> OwnersOf(const OptimizerIndex& index, const std::vector<int>& parameters) {
  std::set<int> servers;
  for (int parameter : parameters) {
    const auto [first, end] = index.ShardsOf(parameter);
    for (int shard = first; shard < end; ++shard) {
      servers.insert(index.shard(shard).metadata.placement.server_rank);
    }
  }
  return servers;
}

}  // namespace

StateDictStream::StateDictStream(std::shared_ptr<const ClientCore> client,
                                 std::shared_ptr<SnapshotHold> hold, absl::Time deadline)
    : client_(std::move(client)),
      snapshot_(hold->snapshot()),
      hold_(std::move(hold)),
      lease_(hold_->KeepAlive()),
      deadline_(deadline) {}

absl::StatusOr<std::unique_ptr<StateDictStream>> StateDictStream::Open(
    std::shared_ptr<const ClientCore> client, const v1::CallHeader& header,
    std::shared_ptr<SnapshotHold> hold, const StateDictOptions& options, absl::Time deadline) {
  const v1::Snapshot& snapshot = hold->snapshot();
  v1::ReadStateRequest request;
  *request.mutable_header() = header;
  request.mutable_header()->clear_lineage();
  request.mutable_header()->set_plan_id(snapshot.plan_id());
  request.set_snapshot(snapshot.snapshot());
  auto stream = std::unique_ptr<StateDictStream>(
      new StateDictStream(std::move(client), std::move(hold), deadline));
  SHARDSTEP_ASSIGN_OR_RETURN(
      DescribedOptimizer described,
      DescribeSnapshot(*stream->client_, request.header(), snapshot.snapshot(), deadline));
  stream->trainer_states_ = std::move(described.trainer_states);
  stream->described_ = std::make_shared<const OptimizerIndex>(std::move(described.description));
  SHARDSTEP_ASSIGN_OR_RETURN(const StateSelection selection,
                             StateSelection::Make(stream->described_, options));
  SHARDSTEP_RETURN_IF_ERROR(stream->FindEntries(request, selection));
  *request.mutable_selector() = selection.selector();
  stream->StartLanes(request);
  return stream;
}

absl::Status StateDictStream::FindEntries(const v1::ReadStateRequest& request,
                                          const StateSelection& selection) {
  std::map<Key, std::optional<double>> present;
  for (auto& [selector, parameters] : selection.PresenceSelectors()) {
    v1::ReadStateRequest asking = request;
    *asking.mutable_selector() = std::move(selector);
    PresenceSink sink(described_, OwnersOf(*described_, parameters));
    SHARDSTEP_RETURN_IF_ERROR(ReadStateFromAll(&client_->connection(), asking, snapshot_, &sink,
                                               client_->policy(), deadline_));
    present.merge(sink.Take());
  }
  for (auto& [key, entry] : selection.Entries(present)) {
    SHARDSTEP_ASSIGN_OR_RETURN(const int64_t bytes, NumBytes(entry.region.sizes, entry.dtype));
    if (!entry.scalar) entry_of_[key] = entries_.size();
    bytes_left_.push_back(entry.scalar ? 0 : static_cast<uint64_t>(bytes));
    total_bytes_ += static_cast<uint64_t>(bytes);
    entries_.push_back(std::move(entry));
  }
  return absl::OkStatus();
}

void StateDictStream::StartLanes(const v1::ReadStateRequest& request) {
  std::vector<int> parameters;
  for (const auto& [key, entry] : entry_of_) {
    if (bytes_left_[entry] > 0) parameters.push_back(key.first);
  }
  lanes_ =
      std::make_unique<ReadLanes>(&client_->connection(), request, snapshot_,
                                  OwnersOf(*described_, parameters), client_->policy(), deadline_);
}

absl::StatusOr<std::optional<StateDictPiece>> StateDictStream::Next() {
  if (!failed_.ok()) return failed_;
  while (next_scalar_ < entries_.size()) {
    if (entries_[next_scalar_].scalar) return NextScalar();
    ++next_scalar_;
  }
  while (lanes_ != nullptr) {
    absl::StatusOr<std::optional<StateDictPiece>> piece = NextOfFrame();
    if (piece.ok() && piece->has_value()) return piece;
    const absl::StatusOr<bool> more = piece.ok() ? NextFrame() : piece.status();
    if (!more.ok()) {
      failed_ = more.status();
      lanes_.reset();
      return failed_;
    }
    if (!*more) Finish();
  }
  if (!failed_.ok()) return failed_;
  return std::nullopt;
}

void StateDictStream::Finish() {
  lanes_.reset();
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (bytes_left_[i] == 0) continue;
    const StateDictEntry& entry = entries_[i];
    const std::string state =
        entry.state.empty() ? "" : absl::StrCat(", state \"", entry.state, "\"");
    failed_ = absl::InternalError(absl::StrCat("parameter \"", entry.parameter, "\"", state,
                                               ": servers left out ", bytes_left_[i], " bytes"));
    return;
  }
  lease_.reset();
  hold_.reset();
}

StateDictPiece StateDictStream::NextScalar() {
  const StateDictEntry& entry = entries_[next_scalar_];
  scalar_.resize(static_cast<size_t>(ItemSize(entry.dtype)));
  if (entry.dtype == DType::kFloat32) {
    const float value = static_cast<float>(*entry.scalar);
    std::memcpy(scalar_.data(), &value, sizeof(value));
  } else if (entry.dtype == DType::kInt64) {
    const auto value = static_cast<int64_t>(*entry.scalar);
    std::memcpy(scalar_.data(), &value, sizeof(value));
  } else {
    std::memcpy(scalar_.data(), &*entry.scalar, sizeof(double));
  }
  return {next_scalar_++, 0, absl::string_view(scalar_.data(), scalar_.size())};
}

absl::StatusOr<bool> StateDictStream::NextFrame() {
  payload_.reset();
  SHARDSTEP_ASSIGN_OR_RETURN(std::optional<TakenFrame> taken, lanes_->Next());
  if (!taken) return false;
  received_ = std::move(taken->received);
  frame_ = std::move(taken->frame);
  frame_rank_ = taken->server_rank;
  payload_.emplace(frame_);
  slice_ = 0;
  runs_.reset();
  return true;
}

absl::Status StateDictStream::BeginSlice() {
  const v1::Slice& slice = frame_.header.slices().slices(slice_);
  SHARDSTEP_RETURN_IF_ERROR(CheckSlice(*described_, frame_rank_, slice));
  const PlannedShard& shard = described_->shard(static_cast<int>(slice.shard()));
  const auto found = entry_of_.find({shard.parameter, slice.tensor()});
  const Region region = described_->TensorRegion(static_cast<int>(slice.shard()), slice.tensor());
  const std::optional<Region> part =
      found == entry_of_.end() ? std::nullopt : Intersect(region, entries_[found->second].region);
  if (slice.count() > 0 && !part) {
    return absl::InternalError(absl::StrCat("server ", frame_rank_, " sent tensor ", slice.tensor(),
                                            " of shard ", slice.shard(),
                                            ", which was not asked for"));
  }
  if (!part) return absl::OkStatus();
  entry_ = found->second;
  position_ = slice.offset();
  runs_.emplace(*part, region, entries_[entry_].region);
  run_ = runs_->FirstEndingAfter(static_cast<int64_t>(position_));
  return absl::OkStatus();
}

absl::StatusOr<std::optional<StateDictPiece>> StateDictStream::NextOfFrame() {
  if (!payload_) return std::nullopt;
  for (; slice_ < frame_.header.slices().slices_size(); ++slice_, runs_.reset()) {
    if (!runs_) SHARDSTEP_RETURN_IF_ERROR(BeginSlice());
    if (!runs_) continue;  // without elements
    const v1::Slice& slice = frame_.header.slices().slices(slice_);
    const uint64_t end = slice.offset() + slice.count();
    if (position_ == end) continue;
    const uint64_t item = static_cast<uint64_t>(ItemSize(entries_[entry_].dtype));
    // A server sends what lies in the part and nothing between.
    const uint64_t run_begin = run_ < runs_->count() ? runs_->AOffset(run_) : end;
    if (position_ < run_begin) {
      return absl::InternalError(absl::StrCat("server ", frame_rank_, " sent elements of shard ",
                                              slice.shard(), " that were not asked for"));
    }
    const uint64_t run_end = run_begin + static_cast<uint64_t>(runs_->length());
    const uint64_t wanted = (std::min(end, run_end) - position_) * item - run_done_;
    StateDictPiece piece;
    piece.entry = entry_;
    piece.offset = (runs_->BOffset(run_) + position_ - run_begin) * item + run_done_;
    piece.bytes = slice.body() == v1::Slice::ZERO ? Zeros(wanted) : payload_->Take(wanted);
    if (piece.bytes.empty()) return absl::InternalError("a slice without its bytes");
    if (piece.bytes.size() > bytes_left_[entry_]) {
      return absl::InternalError(absl::StrCat("parameter \"", entries_[entry_].parameter,
                                              "\": servers sent elements twice"));
    }
    bytes_left_[entry_] -= piece.bytes.size();
    run_done_ += piece.bytes.size();
    if (piece.bytes.size() == wanted) {
      position_ = std::min(end, run_end);
      run_done_ = 0;
      if (position_ == run_end) ++run_;
    }
    return piece;
  }
  return std::nullopt;
}

}  // namespace shardstep::internal
