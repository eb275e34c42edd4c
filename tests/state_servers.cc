#include "shardstep/tests/state_servers.h"

#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "shardstep/client/fake_fleet.h"
#include "shardstep/client/load_feed.h"
#include "shardstep/client/state_dict_read.h"
#include "shardstep/client/tensor_cut.h"
#include "shardstep/server/base_file.h"
#include "shardstep/server/checkpoint_store.h"
#include "shardstep/server/rpc/read_plan.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/frame.h"
#include "shardstep/wire/pages.h"

namespace shardstep {
namespace {

constexpr char kRoot[] = "/checkpoints";
constexpr int kVersion = 4;
constexpr int kLineage = 2;

absl::Status Send(const v1::FrameHeader& header, const std::vector<absl::string_view>& payload,
                  Assembly* to) {
  const FramePrefix prefix = EncodeFramePrefix(header, payload);
  std::vector<absl::string_view> pieces = {prefix.bytes};
  pieces.insert(pieces.end(), payload.begin(), payload.end());
  SHARDSTEP_ASSIGN_OR_RETURN(const FrameView frame, DecodeFrame(pieces));
  return header.has_scalars() ? to->ApplyScalars(frame) : to->Apply(frame);
}

// What a server answers to a read.
internal::FakeReadServer::Script Answer(std::shared_ptr<const HeldVersion> held,
                                        const v1::ReadStateRequest& request) {
  internal::FakeReadServer::Script script;
  auto plan = ReadPlan::Make(std::move(held), request.selector(), request.skip_bytes());
  script.status = plan.status();
  while (plan.ok() && !plan->done()) {
    const ReadPlan::Frame frame = plan->Next();
    std::vector<absl::string_view> pieces = {frame.prefix.bytes};
    pieces.insert(pieces.end(), frame.payload.begin(), frame.payload.end());
    const FrameView view = DecodeFrame(pieces).value();
    script.headers.push_back(view.header);
    std::string& payload = script.payloads.emplace_back();
    for (const absl::string_view piece : view.payload) absl::StrAppend(&payload, piece);
  }
  return script;
}

}  // namespace

StateServers::StateServers(const OptimizerDescription& description, int servers, FileSystem* files)
    : description_(description),
      servers_(servers),
      files_(files),
      index_(std::make_shared<const internal::OptimizerIndex>(description)) {
  for (int server = 0; server < servers; ++server) {
    HeldVersion& held = *held_.emplace_back(std::make_shared<HeldVersion>());
    held.version = kVersion;
    held.lineage = kLineage;
    held.kind = v1::EVERYTHING;
    held.layout = Layout::Make(DescriptionToProto(description), server).value();
    held.groups = description.groups;
  }
}

absl::Status StateServers::Stage(
    int server, const std::function<absl::Status(const Staging&, Assembly*)>& fill) {
  v1::StagedChange change;
  for (size_t i = 0; i < description_.definition.parameters.size(); ++i) {
    v1::StagedChange::Tensors* tensors = change.add_tensors();
    tensors->set_parameter(i);
    tensors->set_value(true);
    for (size_t k = 1; k <= description_.states.size(); ++k) tensors->add_states(k);
  }
  const std::shared_ptr<const Layout> layout = held_[server]->layout;
  SHARDSTEP_ASSIGN_OR_RETURN(Staging staging, Staging::Make(/*id=*/1, layout, change));
  const int64_t before = memory_.used();
  auto write = std::make_shared<Assembly>(layout, &memory_, Assembly::Takes::kParametersAndState);
  SHARDSTEP_RETURN_IF_ERROR(fill(staging, write.get()));
  if (memory_.used() - before != staging.wanted_bytes()) {
    return absl::InternalError(absl::StrCat("server ", server, ": took ", memory_.used() - before,
                                            " bytes, expected ", staging.wanted_bytes()));
  }
  SHARDSTEP_RETURN_IF_ERROR(staging.Add(/*session=*/1, std::move(write)));
  if (!staging.complete()) {
    return absl::InternalError(absl::StrCat("server ", server, ": the staging lacks something"));
  }
  std::vector<MemoryBudget::Reservation> reservations;
  SHARDSTEP_ASSIGN_OR_RETURN(held_[server]->state, staging.Take(&reservations));
  return absl::OkStatus();
}

absl::Status StateServers::Load(const StateDict& dict) {
  SHARDSTEP_ASSIGN_OR_RETURN(const auto source, internal::LoadSource::Of(dict));
  SHARDSTEP_ASSIGN_OR_RETURN(const auto feed,
                             internal::LoadFeed::Make(*source, *index_, servers_, nullptr));
  std::vector<std::vector<internal::OutgoingSlice>> slices(servers_);
  while (true) {
    SHARDSTEP_ASSIGN_OR_RETURN(const bool more, feed->Next(&slices));
    if (!more) break;
  }
  for (int server = 0; server < servers_; ++server) {
    SHARDSTEP_RETURN_IF_ERROR(Stage(server, [&](const Staging&, Assembly* write) -> absl::Status {
      std::deque<internal::OutgoingSlice> waiting(slices[server].begin(), slices[server].end());
      while (!waiting.empty()) {
        const internal::OutgoingFrame frame = internal::TakeFrame(&waiting);
        SHARDSTEP_RETURN_IF_ERROR(
            Send(internal::HeaderOf(frame), internal::PayloadOf(frame), write));
      }
      v1::FrameHeader header;
      *header.mutable_scalars() = feed->ScalarsFor(server);
      return Send(header, {}, write);
    }));
  }
  return absl::OkStatus();
}

absl::StatusOr<StateDict> StateServers::Read(const StateDictOptions& options) const {
  v1::Snapshot snapshot;
  snapshot.set_snapshot(5);
  snapshot.set_version(kVersion);
  snapshot.set_lineage(kLineage);
  snapshot.set_plan_id(index_->plan_id());
  snapshot.set_lease_ms(30000);
  snapshot.set_kind(v1::EVERYTHING);
  auto connection =
      std::make_unique<::testing::NiceMock<internal::MockConnection>>(index_, servers_);
  ON_CALL(*connection, OpenSnapshot).WillByDefault([&](const auto&, absl::Time) {
    v1::OpenSnapshotReply reply;
    *reply.mutable_snapshot() = snapshot;
    return reply;
  });
  ON_CALL(*connection, CloseSnapshot).WillByDefault([](const auto&, absl::Time) {
    return v1::CloseSnapshotReply();
  });
  ON_CALL(*connection, Describe).WillByDefault([this](const auto& request, absl::Time) {
    v1::DescribeReply reply;
    const std::string bytes = DescriptionToProto(description_).SerializeAsString();
    *reply.mutable_description() = PagedMessage(bytes).page(request.page()).value();
    return reply;
  });
  for (int server = 0; server < servers_; ++server) {
    connection->readers[server].serve = [held = held_[server]](const auto& request) {
      return Answer(held, request);
    };
  }
  internal::FakeTimer timer;
  v1::CallHeader header;
  header.set_optimizer(index_->name());
  internal::PullCore pull(internal::MakeCore(std::move(connection), &timer), header, index_);
  return internal::ReadStateDict(&pull, options, /*at_least=*/0);
}

absl::Status StateServers::Save(const std::string& checkpoint_id) const {
  const auto store = [this](int server) {
    return CheckpointStore(files_, kRoot, server, /*keep_last=*/2);
  };
  v1::BeginCheckpoint begin;
  begin.set_checkpoint_id(checkpoint_id);
  begin.set_version(kVersion);
  SHARDSTEP_ASSIGN_OR_RETURN(const v1::CheckpointBegun begun,
                             store(0).Begin(index_->name(), begin));
  v1::WriteCheckpoint write;
  write.set_checkpoint_id(checkpoint_id);
  write.set_token(begun.token());
  write.set_servers(servers_);
  v1::FinishCheckpoint finish;
  finish.set_checkpoint_id(checkpoint_id);
  v1::CheckpointFacts& facts = *finish.mutable_facts();
  facts.set_checkpoint_id(checkpoint_id);
  facts.set_version(kVersion);
  facts.set_lineage(kLineage);
  facts.set_lineage_ordinal(begun.lineage_ordinal());
  *facts.mutable_description() = DescriptionToProto(description_);
  for (int server = 0; server < servers_; ++server) {
    int64_t left = 0;
    SHARDSTEP_ASSIGN_OR_RETURN(
        const v1::CheckpointWritten written,
        store(server).Write(*held_[server], write,
                            [&](int64_t done, int64_t total) { left = total - done; }));
    // Headers and scalars count too.
    if (left > 0) return absl::InternalError(absl::StrCat(left, " bytes were not written"));
    for (const v1::CheckpointFile& file : written.files()) *facts.add_files() = file;
  }
  return store(0).Finish(index_->name(), finish);
}

absl::Status StateServers::Restore(const std::string& checkpoint_id) {
  for (int server = 0; server < servers_; ++server) {
    CheckpointStore store(files_, kRoot, server, /*keep_last=*/2);
    SHARDSTEP_RETURN_IF_ERROR(Stage(server, [&](const Staging& staging, Assembly* write) {
      return store.Fill(staging, checkpoint_id, write, [](int64_t, int64_t) {});
    }));
  }
  return absl::OkStatus();
}

absl::Status StateServers::PassThroughBases() {
  for (int server = 0; server < servers_; ++server) {
    const std::string path = absl::StrCat("/base-", server);
    v1::BaseHeader header;
    *header.mutable_description() = held_[server]->layout->description;
    SHARDSTEP_RETURN_IF_ERROR(WriteBaseFile(files_, path, std::move(header), held_[server]->state));
    SHARDSTEP_ASSIGN_OR_RETURN(Base base, ReadBaseFile(files_, path, server));
    held_[server]->state = std::move(base.state);
    SHARDSTEP_RETURN_IF_ERROR(files_->RemoveFile(path));
  }
  return absl::OkStatus();
}

}  // namespace shardstep
