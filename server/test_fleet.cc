#include "shardstep/server/test_fleet.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/definition.h"
#include "shardstep/wire/frame.h"
#include "shardstep/wire/pages.h"

namespace shardstep {

NodeOptions TestFleet::DefaultOptions() {
  NodeOptions options;
  options.lease = absl::Seconds(30);
  options.shard_memory = options.push_memory = options.snapshot_memory = 1 << 24;
  return options;
}

TestFleet::TestFleet(int servers, std::string directory, NodeOptions options)
    : directory_(std::move(directory)),
      options_(options),
      cut_(servers, false),
      batches_(servers, 0) {
  nodes_.resize(servers);
  layouts_.resize(servers);
  for (int server = 0; server < servers; ++server) Start(server);
}

TestFleet::~TestFleet() = default;

void TestFleet::StartServer(int server) {
  auto started = std::make_unique<Server>();
  started->catalog =
      Catalog::Open(PosixFileSystem(), absl::StrCat(directory_, "/server-", server)).value();
  NodeOptions options = options_;
  options.server_rank = server;
  options.servers = static_cast<int>(nodes_.size());
  started->checkpoints = std::make_unique<CheckpointStore>(
      PosixFileSystem(),
      absl::StrCat(directory_, "/checkpoints", separate_roots_.count(server) > 0 ? "-apart" : ""),
      server, /*keep_last=*/2);
  NodeEnvironment environment;
  environment.catalog = started->catalog.get();
  environment.checkpoints = started->checkpoints.get();
  environment.files = PosixFileSystem();
  environment.executor = environment.disk = environment.log = &executor_;
  environment.clock = &clock_;
  environment.open_peer = [this](int to, const std::string& optimizer,
                                 std::weak_ptr<Coordinator> coordinator) {
    const Peering peering{std::move(coordinator), optimizer};
    if (to == 0) peerings_.push_back(peering);
    Connect(to, peering);
  };
  environment.fatal = [this](const absl::Status& status) { fatal_ = status; };
  started->node = std::make_unique<Node>(options, environment);
  nodes_[server] = std::move(started);
  if (server == 0) nodes_[0]->node->ConnectPeers();
}

void TestFleet::Connect(int server, const Peering& peering) {
  const auto coordinator = peering.coordinator.lock();
  if (coordinator == nullptr || nodes_[server] == nullptr) return;
  const std::shared_ptr<ShardHost> host =
      nodes_[server]->node->FindHost(peering.optimizer, /*create=*/true).value();
  const auto incarnation = std::make_shared<uint64_t>(0);
  coordinator->ConnectPeer(
      server, [=, weak = peering.coordinator](const std::vector<v1::PeerMessage>& messages) {
        if (cut_[server]) return;
        ++batches_[server];
        if (!messages[0].has_hello()) return host->Receive(*incarnation, messages);
        *incarnation = messages[0].hello().coordinator_incarnation();
        host->Connect(
            messages[0].hello(),
            [=](std::vector<v1::PeerReply> replies) {
              const auto to = weak.lock();
              if (to != nullptr && !cut_[server]) to->OnPeerReplies(server, std::move(replies));
            },
            [](absl::Status) {});
      });
}

void TestFleet::Restart(int server) {
  Stop(server);
  Start(server);
}

void TestFleet::Stop(int server) {
  if (server == 0) peerings_.clear();
  for (const Peering& peering : peerings_) {
    const auto coordinator = peering.coordinator.lock();
    if (coordinator != nullptr) coordinator->DisconnectPeer(server);
  }
  nodes_[server].reset();
}

void TestFleet::Start(int server) {
  StartServer(server);
  if (server == 0) return;
  for (const Peering& peering : peerings_) Connect(server, peering);
}

void TestFleet::Cut(int server) {
  cut_[server] = true;
  for (const Peering& peering : peerings_) {
    const auto coordinator = peering.coordinator.lock();
    if (coordinator != nullptr) coordinator->DisconnectPeer(server);
  }
}

void TestFleet::Heal(int server) {
  cut_[server] = false;
  for (const Peering& peering : peerings_) Connect(server, peering);
}

void TestFleet::Advance(absl::Duration by) {
  const absl::Duration tick = absl::Milliseconds(500);
  for (absl::Duration done; done < by; done += tick) {
    clock_.Advance(tick);
    for (const auto& server : nodes_) {
      if (server != nullptr) server->node->Tick();
    }
  }
}

Coordinator& TestFleet::coordinator(const std::string& optimizer) {
  return **nodes_[0]->node->FindCoordinator(optimizer, /*create=*/true);
}

ShardHost& TestFleet::host(int server, const std::string& optimizer) {
  return **nodes_[server]->node->FindHost(optimizer, /*create=*/true);
}

OptimizerDefinition TestFleet::Definition(const std::vector<std::pair<std::string, int64_t>>& sizes,
                                          OptionMap options, Mode mode, int servers) {
  OptimizerDefinition definition;
  definition.name = "m";
  definition.kind = "SGD";
  definition.defaults = CompleteOptions("SGD", options).value();
  ParamGroup group;
  group.options = definition.defaults;
  std::vector<Placement> placements;
  for (int server = 0; server < servers; ++server) placements.push_back({server, "cpu"});
  for (const auto& [name, size] : sizes) {
    definition.parameters.push_back({name, DType::kFloat32, {size}, Chunk{0, placements}});
    definition.sharded.push_back(false);
    group.params.push_back(name);
  }
  definition.groups = {group};
  definition.mode = mode;
  return definition;
}

uint64_t TestFleet::OpenSession(int trainer_rank, const std::string& instance) {
  v1::OpenSessionRequest request;
  request.mutable_header()->set_optimizer("m");
  request.set_trainer_rank(trainer_rank);
  request.set_instance(instance);
  Answer<v1::OpenSessionReply> answer;
  coordinator().OpenSession(request, {clock_.Now() + absl::Minutes(1)}, answer.reply());
  return answer.there() && answer.status().ok() ? answer->session() : 0;
}

absl::Status TestFleet::Fill(Assembly* assembly, const Layout& layout, const Fills& fills,
                             v1::End* end) {
  FrameDigest digest;
  const auto send = [&](const v1::FrameHeader& header, absl::string_view payload) -> absl::Status {
    const FramePrefix prefix = EncodeFramePrefix(header, {payload});
    SHARDSTEP_ASSIGN_OR_RETURN(const FrameView frame, DecodeFrame({prefix.bytes, payload}));
    if (assembly != nullptr) {
      SHARDSTEP_RETURN_IF_ERROR(header.has_scalars() ? assembly->ApplyScalars(frame)
                                                     : assembly->Apply(frame));
    }
    digest.Add(prefix.crc32c);
    end->set_frames(end->frames() + 1);
    return absl::OkStatus();
  };
  std::set<std::pair<int, uint32_t>> scalars;
  for (const LocalShardInfo& shard : layout.local) {
    for (int tensor = 0; tensor <= layout.description.states_size(); ++tensor) {
      const std::string state = tensor == 0 ? "" : layout.description.states(tensor - 1).name();
      const auto fill = fills.find({layout.parameters[shard.parameter].name, state});
      if (fill == fills.end()) continue;
      v1::FrameHeader header;
      if (tensor > 0 && layout.description.states(tensor - 1).scalar()) {
        if (!scalars.emplace(shard.parameter, tensor).second) continue;
        v1::Scalars::Scalar* scalar = header.mutable_scalars()->add_scalars();
        scalar->set_parameter(shard.parameter);
        scalar->set_tensor(tensor);
        scalar->set_value(fill->second);
        SHARDSTEP_RETURN_IF_ERROR(send(header, {}));
        continue;
      }
      const LocalTensor info = layout.TensorOf(layout.local_of[shard.shard], tensor);
      const std::vector<float> elements(info.elements, fill->second);
      v1::Slice* slice = header.mutable_slices()->add_slices();
      slice->set_shard(shard.shard);
      slice->set_count(info.elements);
      slice->set_dtype(v1::FLOAT32);
      slice->set_tensor(tensor);
      SHARDSTEP_RETURN_IF_ERROR(send(header, {reinterpret_cast<const char*>(elements.data()),
                                              static_cast<size_t>(info.bytes)}));
    }
  }
  end->set_digest(digest.value());
  return absl::OkStatus();
}

absl::Status TestFleet::Stage(const v1::ProposeReply::Staging& staging, uint64_t session,
                              const Fills& fills, int servers) {
  v1::DescribeRequest describe;
  describe.set_staging(staging.staging());
  Answer<v1::DescribeReply> described;
  coordinator().Describe(describe, described.reply());
  SHARDSTEP_RETURN_IF_ERROR(described.status());
  v1::Description description;
  if (!description.ParseFromString(described->description().data())) {
    return absl::UnknownError("description");
  }
  const size_t end_server = servers < 0 ? nodes_.size() : servers;
  for (size_t server = 0; server < end_server; ++server) {
    SHARDSTEP_ASSIGN_OR_RETURN(layouts_[server], Layout::Make(description, server));
    v1::WriteBegin begin;
    begin.mutable_header()->set_session(session);
    begin.mutable_header()->set_plan_id(staging.plan_id());
    begin.set_staging(staging.staging());
    Answer<std::shared_ptr<StagedWrite>> write;
    host(server).BeginWrite(begin, write.reply());
    // This server wants nothing, and the others have all they want: the change is through.
    if (absl::IsAborted(write.status())) continue;
    SHARDSTEP_RETURN_IF_ERROR(write.status());
    v1::End end;
    SHARDSTEP_RETURN_IF_ERROR(Fill((*write)->assembly.get(), *layouts_[server], fills, &end));
    Answer<v1::WriteStateReply> written;
    host(server).EndWrite(*write, end, written.reply());
    SHARDSTEP_RETURN_IF_ERROR(written.status());
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::ProposeReply::Done> TestFleet::Propose(v1::ProposeRequest request,
                                                          const Fills& fills) {
  request.mutable_header()->set_optimizer("m");
  const Caller caller{clock_.Now() + absl::Minutes(1)};
  for (;;) {
    // A proposal that waits is answered later.
    auto answer = std::make_shared<Answer<v1::ProposeReply>>();
    kept_.push_back(answer);
    coordinator().Propose(request, caller, answer->reply());
    SHARDSTEP_RETURN_IF_ERROR(answer->status());
    const v1::ProposeReply& reply = **answer;
    if (reply.has_done()) return reply.done();
    if (!reply.has_staging()) return absl::UnknownError(reply.ShortDebugString());
    SHARDSTEP_RETURN_IF_ERROR(Stage(reply.staging(), request.header().session(), fills));
    request.set_staged(reply.staging().staging());
  }
}

absl::Status TestFleet::Create(const OptimizerDefinition& definition, uint64_t session) {
  v1::ProposeRequest request;
  request.mutable_header()->set_session(session);
  *request.mutable_create() =
      PagedMessage(DefinitionToProto(definition).SerializeAsString()).page(0).value();
  Fills zeros;
  for (const ParameterShape& parameter : definition.parameters) zeros[{parameter.name, ""}] = 0;
  return Propose(request, zeros).status();
}

absl::StatusOr<v1::CheckpointReply::Done> TestFleet::Checkpoint(const std::string& id,
                                                                const std::string& request_id) {
  v1::CheckpointRequest request;
  request.mutable_header()->set_request_id(request_id);
  request.set_checkpoint_id(id);
  Answer<v1::CheckpointReply> answer;
  coordinator().Checkpoint(request, {clock_.Now() + absl::Minutes(1)}, answer.reply());
  SHARDSTEP_RETURN_IF_ERROR(answer.status());
  if (!answer->has_done()) return absl::UnknownError(answer->ShortDebugString());
  return answer->done();
}

absl::StatusOr<v1::ProposeReply::Done> TestFleet::Restore(const std::string& id,
                                                          const std::string& request_id) {
  v1::ProposeRequest request;
  request.mutable_header()->set_request_id(request_id);
  request.mutable_restore()->set_checkpoint_id(id);
  SHARDSTEP_ASSIGN_OR_RETURN(v1::ProposeReply::Done done, Propose(request, {}));
  v1::Description description;
  SHARDSTEP_RETURN_IF_ERROR(ReadEverything(&description).status());
  for (size_t server = 0; server < nodes_.size(); ++server) {
    SHARDSTEP_ASSIGN_OR_RETURN(layouts_[server], Layout::Make(description, server));
  }
  return done;
}

absl::Status TestFleet::Delete(uint64_t lineage) {
  v1::ProposeRequest request;
  request.mutable_header()->set_lineage(lineage);
  request.mutable_delete_();
  Answer<v1::ProposeReply> answer;
  coordinator().Propose(request, {clock_.Now() + absl::Minutes(1)}, answer.reply());
  return answer.status();
}

absl::Status TestFleet::Push(uint64_t session, uint64_t sequence,
                             const std::map<std::string, float>& values, double weight,
                             uint64_t computed_on, int only_server, uint64_t first_live_push) {
  for (int server = 0; server < static_cast<int>(nodes_.size()); ++server) {
    if (only_server >= 0 && server != only_server) continue;
    v1::Begin begin;
    begin.mutable_header()->set_session(session);
    begin.mutable_header()->set_sequence(sequence);
    begin.mutable_header()->set_first_live_push(first_live_push);
    begin.set_weight(weight);
    begin.set_computed_on(computed_on);
    Answer<std::shared_ptr<shardstep::Push>> push;
    host(server).BeginPush(begin, push.reply());
    SHARDSTEP_RETURN_IF_ERROR(push.status());
    v1::End end;
    Fills fills;
    for (const auto& [name, value] : values) fills[{name, ""}] = value;
    SHARDSTEP_RETURN_IF_ERROR(
        Fill((*push)->repeat ? nullptr : &(*push)->assembly, *layouts_[server], fills, &end));
    std::string touched((layouts_[server]->parameters.size() + 7) / 8, '\0');
    for (const auto& [name, value] : values) {
      const int parameter = layouts_[server]->parameter_index.at(name);
      touched[parameter / 8] |= 1 << (parameter % 8);
    }
    end.set_touched(touched);
    absl::Status ended = absl::UnknownError("no answer");
    host(server).EndPush(*push, end, [&](absl::Status status) { ended = status; });
    SHARDSTEP_RETURN_IF_ERROR(ended);
  }
  return absl::OkStatus();
}

std::unique_ptr<Answer<v1::StepReply>> TestFleet::Step(uint64_t session, uint64_t sequence,
                                                       uint64_t first, uint64_t last,
                                                       const v1::StepRequest& more,
                                                       absl::Duration timeout) {
  v1::StepRequest request = more;
  request.mutable_header()->set_session(session);
  request.mutable_header()->set_sequence(sequence);
  request.set_first_push(first);
  request.set_last_push(last);
  auto answer = std::make_unique<Answer<v1::StepReply>>();
  coordinator().Step(request, {clock_.Now() + timeout}, answer->reply());
  return answer;
}

absl::StatusOr<Values> TestFleet::Read(uint64_t snapshot, uint64_t* version) {
  Values values;
  for (size_t server = 0; server < nodes_.size(); ++server) {
    Answer<std::shared_ptr<const HeldVersion>> held;
    host(server).OpenRead({}, snapshot, held.reply());
    SHARDSTEP_RETURN_IF_ERROR(held.status());
    const HeldVersion& read = **held;
    if (version != nullptr && server > 0 && *version != read.version) {
      return absl::InternalError("two versions in one snapshot");
    }
    if (version != nullptr) *version = read.version;
    for (size_t i = 0; i < read.state.shards.size(); ++i) {
      const LocalShardInfo& shard = read.layout->local[i];
      const auto* data = static_cast<const float*>(read.state.shards[i].value.data_ptr());
      std::vector<float>& into = values[read.layout->parameters[shard.parameter].name];
      into.insert(into.end(), data, data + shard.elements);
      for (const TensorState& state : read.state.shards[i].states) {
        const LocalTensor info = read.layout->TensorOf(i, read.layout->FindState(state.name));
        if (!info.speaks) continue;
        const auto* numbers = static_cast<const float*>(state.tensor.data_ptr());
        std::vector<float>& all =
            values[absl::StrCat(read.layout->parameters[shard.parameter].name, "/", state.name)];
        all.insert(all.end(), numbers, numbers + info.elements);
      }
    }
    for (size_t i = 0; i < read.state.scalars.size(); ++i) {
      for (const ScalarState& scalar : read.state.scalars[i]) {
        values[absl::StrCat(read.layout->parameters[i].name, "/", scalar.name)] = {
            static_cast<float>(scalar.value)};
      }
    }
  }
  return values;
}

absl::StatusOr<Values> TestFleet::ReadEverything(v1::Description* description) {
  v1::OpenSnapshotRequest request;
  request.set_kind(v1::EVERYTHING);
  Answer<v1::OpenSnapshotReply> opened;
  coordinator().OpenSnapshot(request, {clock_.Now() + absl::Minutes(1)}, opened.reply());
  SHARDSTEP_RETURN_IF_ERROR(opened.status());
  const uint64_t snapshot = opened->snapshot().snapshot();
  if (description != nullptr) {
    v1::DescribeRequest describe;
    describe.set_snapshot(snapshot);
    Answer<v1::DescribeReply> described;
    coordinator().Describe(describe, described.reply());
    SHARDSTEP_RETURN_IF_ERROR(described.status());
    description->ParseFromString(described->description().data());
  }
  auto values = Read(snapshot);
  v1::CloseSnapshotRequest close;
  close.set_snapshot(snapshot);
  Answer<v1::CloseSnapshotReply> closed;
  coordinator().CloseSnapshot(close, closed.reply());
  return values;
}

absl::StatusOr<Values> TestFleet::ReadNow(uint64_t* version) {
  v1::OpenSnapshotRequest request;
  request.set_kind(v1::PARAMETERS);
  Answer<v1::OpenSnapshotReply> opened;
  coordinator().OpenSnapshot(request, {clock_.Now() + absl::Minutes(1)}, opened.reply());
  SHARDSTEP_RETURN_IF_ERROR(opened.status());
  const uint64_t snapshot = opened->snapshot().snapshot();
  auto values = Read(snapshot, version);
  v1::CloseSnapshotRequest close;
  close.set_snapshot(snapshot);
  Answer<v1::CloseSnapshotReply> closed;
  coordinator().CloseSnapshot(close, closed.reply());
  return values;
}

}  // namespace shardstep
