#include "shardstep/client/pull_core.h"

#include <algorithm>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "shardstep/client/state_read.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

bool Serves(const v1::Snapshot& snapshot, v1::SnapshotKind kind, uint64_t at_least) {
  return snapshot.version() >= at_least &&
         (snapshot.kind() == kind || snapshot.kind() == v1::EVERYTHING);
}

// What is read for `into`: only the blocks that are wanted.
v1::Selector SelectorOf(absl::Span<const NamedTensor> into, size_t num_parameters) {
  v1::Selector selector;
  selector.set_parameters(true);
  const bool everything = into.size() == num_parameters &&
                          std::all_of(into.begin(), into.end(), [](const NamedTensor& tensor) {
                            return tensor.local_shards.empty();
                          });
  if (everything) return selector;
  for (const NamedTensor& tensor : into) {
    if (tensor.local_shards.empty()) selector.add_tensors()->set_parameter(tensor.name);
    for (const LocalShard& local : tensor.local_shards) {
      v1::TensorSelector& block = *selector.add_tensors();
      block.set_parameter(tensor.name);
      for (int64_t offset : local.metadata.offsets) block.add_offsets(offset);
      for (int64_t size : local.metadata.sizes) block.add_sizes(size);
    }
  }
  return selector;
}

absl::StatusOr<std::unique_ptr<BlockSink>> MakeSink(
    const std::shared_ptr<const OptimizerIndex>& index, absl::Span<const NamedTensor> into) {
  auto sink = std::make_unique<BlockSink>(index);
  std::vector<bool> seen(index->parameters().size(), false);
  for (const NamedTensor& tensor : into) {
    SHARDSTEP_ASSIGN_OR_RETURN(const int parameter, index->Find(tensor.name));
    if (seen[parameter]) {
      return absl::InvalidArgumentError(
          absl::StrCat("parameter \"", tensor.name, "\": named twice in one pull"));
    }
    seen[parameter] = true;
    SHARDSTEP_ASSIGN_OR_RETURN(const std::vector<Block> blocks, index->BlocksOf(parameter, tensor));
    sink->Add(parameter, blocks);
  }
  return sink;
}

}  // namespace

void PullCore::Adopt(uint64_t lineage, std::shared_ptr<const OptimizerIndex> index) {
  if (lineage != header_.lineage()) CloseOffered();
  header_.set_lineage(lineage);
  index_ = std::move(index);
}

void PullCore::Offer(const v1::Snapshot& snapshot) {
  CloseOffered();
  offered_ = std::make_shared<SnapshotHold>(client_, ReadHeader(), snapshot);
}

void PullCore::CloseOffered() {
  // One that is still read is closed by its reader.
  if (offered_ != nullptr && offered_.use_count() == 1) closed_.push_back(std::move(offered_));
  offered_.reset();
}

std::vector<uint64_t> PullCore::TakeClosed() {
  CloseOffered();
  std::vector<uint64_t> closed;
  for (const std::shared_ptr<SnapshotHold>& hold : std::exchange(closed_, {})) {
    closed.push_back(hold->snapshot().snapshot());
    hold->Release();
  }
  return closed;
}

v1::CallHeader PullCore::ReadHeader() const {
  v1::CallHeader header = header_;
  header.clear_lineage();
  return header;
}

absl::StatusOr<std::shared_ptr<SnapshotHold>> PullCore::Hold(v1::SnapshotKind kind,
                                                             uint64_t at_least,
                                                             absl::Time deadline) {
  if (offered_ != nullptr && Serves(offered_->snapshot(), kind, at_least)) return offered_;
  return SnapshotHold::Open(client_, header_, kind, at_least, deadline);
}

void PullCore::Drop(const std::shared_ptr<SnapshotHold>& gone) {
  gone->Release();
  if (gone == offered_) offered_.reset();
}

absl::StatusOr<PullResult> PullCore::Pull(absl::Span<const NamedTensor> into, uint64_t at_least,
                                          absl::Duration timeout) {
  const absl::Time deadline = client_->Now() + timeout;
  // Before any call: what is asked for wrongly is said at once.
  SHARDSTEP_ASSIGN_OR_RETURN(std::unique_ptr<BlockSink> sink, MakeSink(index_, into));
  while (true) {
    SHARDSTEP_ASSIGN_OR_RETURN(const std::shared_ptr<SnapshotHold> hold,
                               Hold(v1::PARAMETERS, at_least, deadline));
    const absl::Status status = Read(*hold, into, std::move(sink), deadline);
    if (status.ok()) return PullResult{hold->snapshot().version(), hold->snapshot().lineage()};
    if (ReasonOf(status) != v1::SNAPSHOT_GONE) return status;
    Drop(hold);
    if (client_->Now() >= deadline) return status;
  }
}

absl::Status PullCore::Read(const SnapshotHold& hold, absl::Span<const NamedTensor> into,
                            std::unique_ptr<BlockSink> sink, absl::Time deadline) {
  const v1::Snapshot& snapshot = hold.snapshot();
  const auto lease = hold.KeepAlive();
  // A read is judged by its snapshot's plan, which may be older or newer than the handle's.
  if (snapshot.plan_id() != index_->plan_id()) {
    SHARDSTEP_ASSIGN_OR_RETURN(
        DescribedOptimizer described,
        DescribeSnapshot(*client_, ReadHeader(), snapshot.snapshot(), deadline));
    index_ = std::make_shared<const OptimizerIndex>(std::move(described.description));
    sink = nullptr;
  }
  if (sink == nullptr) {
    SHARDSTEP_ASSIGN_OR_RETURN(sink, MakeSink(index_, into));
  }
  v1::ReadStateRequest request;
  *request.mutable_header() = ReadHeader();
  request.mutable_header()->set_plan_id(snapshot.plan_id());
  request.set_snapshot(snapshot.snapshot());
  *request.mutable_selector() = SelectorOf(into, index_->parameters().size());
  return ReadStateFromAll(&client_->connection(), request, snapshot, sink.get(), client_->policy(),
                          deadline);
}

}  // namespace shardstep::internal
