#include "shardstep/client/pull_core.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "shardstep/client/lease_keeper.h"
#include "shardstep/client/retry.h"
#include "shardstep/client/state_read.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

// A coordinator that answers "not yet" at once is not asked more often than so.
constexpr absl::Duration kPollInterval = absl::Milliseconds(20);
constexpr absl::Duration kClosePatience = absl::Seconds(1);

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

}  // namespace

PullCore::PullCore(std::shared_ptr<const ClientCore> client, v1::CallHeader header,
                   std::shared_ptr<const OptimizerIndex> index)
    : client_(std::move(client)), header_(std::move(header)), index_(std::move(index)) {}

PullCore::~PullCore() {
  if (offered_) closed_.push_back(offered_->snapshot());
  for (uint64_t snapshot : closed_) Close(snapshot);
}

void PullCore::Offer(const v1::Snapshot& snapshot) {
  if (offered_) closed_.push_back(offered_->snapshot());
  offered_ = snapshot;
}

std::vector<uint64_t> PullCore::TakeClosed() {
  if (offered_) closed_.push_back(offered_->snapshot());
  offered_.reset();
  return std::exchange(closed_, {});
}

absl::StatusOr<PullResult> PullCore::Pull(absl::Span<const NamedTensor> into, uint64_t at_least,
                                          absl::Duration timeout) {
  const auto make_sink = [&]() -> absl::StatusOr<std::unique_ptr<BlockSink>> {
    auto sink = std::make_unique<BlockSink>(index_);
    absl::flat_hash_set<int> seen;
    for (const NamedTensor& tensor : into) {
      SHARDSTEP_ASSIGN_OR_RETURN(const int parameter, index_->Find(tensor.name));
      if (!seen.insert(parameter).second) {
        return absl::InvalidArgumentError(
            absl::StrCat("parameter \"", tensor.name, "\": named twice in one pull"));
      }
      SHARDSTEP_ASSIGN_OR_RETURN(const std::vector<Block> blocks,
                                 index_->BlocksOf(parameter, tensor));
      sink->Add(parameter, blocks);
    }
    return sink;
  };
  // Before any call: what is asked for wrongly is said at once.
  SHARDSTEP_RETURN_IF_ERROR(make_sink().status());
  std::unique_ptr<BlockSink> sink;
  SHARDSTEP_ASSIGN_OR_RETURN(
      const v1::Snapshot snapshot,
      Read<BlockSink>(v1::PARAMETERS, SelectorOf(into, index_->parameters().size()), at_least,
                      client_->Now() + timeout, make_sink, &sink));
  return PullResult{snapshot.version(), snapshot.lineage()};
}

absl::StatusOr<OptimizerState> PullCore::State(uint64_t at_least, absl::Duration timeout) {
  v1::Selector selector;
  selector.set_state(true);
  const auto make_sink = [&]() -> absl::StatusOr<std::unique_ptr<StateSink>> {
    return std::make_unique<StateSink>(index_);
  };
  std::unique_ptr<StateSink> sink;
  SHARDSTEP_ASSIGN_OR_RETURN(const v1::Snapshot snapshot,
                             Read<StateSink>(v1::EVERYTHING, selector, at_least,
                                             client_->Now() + timeout, make_sink, &sink));
  OptimizerState state;
  state.version = snapshot.version();
  state.lineage = snapshot.lineage();
  state.state = sink->TakeState();
  // A snapshot names its groups by position.
  state.param_groups = index_->description().groups;
  if (static_cast<size_t>(snapshot.groups_size()) != state.param_groups.size()) {
    return absl::InternalError(absl::StrCat("the snapshot has ", snapshot.groups_size(),
                                            " groups, expected ", state.param_groups.size()));
  }
  for (size_t i = 0; i < state.param_groups.size(); ++i) {
    SHARDSTEP_ASSIGN_OR_RETURN(state.param_groups[i].options,
                               OptionMapFromProto(snapshot.groups(static_cast<int>(i)).options()));
  }
  return state;
}

template <typename Sink, typename MakeSink>
absl::StatusOr<v1::Snapshot> PullCore::Read(v1::SnapshotKind kind, const v1::Selector& selector,
                                            uint64_t at_least, absl::Time deadline,
                                            const MakeSink& make_sink,
                                            std::unique_ptr<Sink>* sink) {
  while (true) {
    const bool from_step = offered_ && Serves(*offered_, kind, at_least);
    v1::Snapshot snapshot;
    if (from_step) {
      snapshot = *offered_;
    } else {
      SHARDSTEP_ASSIGN_OR_RETURN(snapshot, OpenSnapshot(kind, at_least, deadline));
    }
    absl::Status status = absl::OkStatus();
    if (snapshot.plan_id() != index_->plan_id()) status = Describe(deadline);
    if (status.ok()) {
      absl::StatusOr<std::unique_ptr<Sink>> made = make_sink();
      status = made.status();
      if (made.ok()) {
        *sink = *std::move(made);
        status = ReadSnapshot(snapshot, selector, sink->get(), deadline);
      }
    }
    const bool gone = ReasonOf(status) == v1::SNAPSHOT_GONE;
    if (from_step && gone) offered_.reset();
    if (!from_step && !gone) Close(snapshot.snapshot());
    if (status.ok()) return snapshot;
    if (!gone || client_->Now() >= deadline) return status;
  }
}

absl::StatusOr<v1::Snapshot> PullCore::OpenSnapshot(v1::SnapshotKind kind, uint64_t at_least,
                                                    absl::Time deadline) {
  v1::OpenSnapshotRequest request;
  *request.mutable_header() = header_;
  request.set_at_least_version(at_least);
  request.set_kind(kind);
  const absl::Time started = client_->Now();
  std::optional<uint64_t> current;
  while (true) {
    const absl::Time asked = client_->Now();
    const absl::StatusOr<v1::OpenSnapshotReply> reply =
        client_->connection().OpenSnapshot(request, deadline);
    const absl::Time now = client_->Now();
    if (reply.ok()) {
      if (reply->has_snapshot()) return reply->snapshot();
      current = reply->current_version();
    } else if (now < deadline || !current || !IsTransient(reply.status())) {
      return reply.status();  // else the last call had no time left for an answer
    }
    if (now >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("pull of \"", header_.optimizer(), "\": waited ", Seconds(now - started),
                       " for version ", at_least, ", the current one is ", *current));
    }
    client_->policy().timer->SleepFor(std::min(kPollInterval - (now - asked), deadline - now));
  }
}

absl::Status PullCore::ReadSnapshot(const v1::Snapshot& snapshot, const v1::Selector& selector,
                                    SliceSink* sink, absl::Time deadline) {
  v1::ReadStateRequest request;
  *request.mutable_header() = header_;
  request.mutable_header()->set_plan_id(snapshot.plan_id());
  request.set_snapshot(snapshot.snapshot());
  *request.mutable_selector() = selector;
  const absl::Duration lease_time = absl::Milliseconds(snapshot.lease_ms());
  const std::unique_ptr<LeaseKeeper::Lease> lease =
      client_->leases().Keep(lease_time, [this, &snapshot, lease_time] {
        v1::RenewSnapshotRequest renew;
        *renew.mutable_header() = header_;
        renew.set_snapshot(snapshot.snapshot());
        // A lease that ends shows in the read.
        (void)client_->connection().RenewSnapshot(renew, client_->Now() + lease_time / 3);
      });
  return ReadStateFromAll(&client_->connection(), request, snapshot, sink, client_->policy(),
                          deadline);
}

void PullCore::Close(uint64_t snapshot) {
  v1::CloseSnapshotRequest request;
  *request.mutable_header() = header_;
  request.set_snapshot(snapshot);
  // Without an answer its lease ends it.
  (void)client_->connection().CloseSnapshot(request, client_->Now() + kClosePatience);
}

absl::Status PullCore::Describe(absl::Time deadline) {
  SHARDSTEP_ASSIGN_OR_RETURN(DescribedOptimizer described,
                             DescribeOptimizer(*client_, header_, /*staging=*/0, deadline));
  index_ = std::make_shared<const OptimizerIndex>(std::move(described.description));
  return absl::OkStatus();
}

}  // namespace shardstep::internal
