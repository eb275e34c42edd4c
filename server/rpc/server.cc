#include "shardstep/server/rpc/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <future>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "shardstep/optim/numeric_fingerprint.h"
#include "shardstep/server/durability.h"
#include "shardstep/server/rpc/version.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/credentials.h"
#include "shardstep/wire/fleet_file.h"
#include "shardstep/wire/transport.h"
#include "spdlog/spdlog.h"

namespace shardstep {
namespace {

// Of different optimizers, or a reader beside a writer.
constexpr int kDiskThreads = 2;
// Of different optimizers: one's log is written by one thread at a time.
constexpr int kLogThreads = 2;
constexpr absl::Duration kTick = absl::Milliseconds(50);
constexpr absl::Duration kFleetFilePoll = absl::Milliseconds(20);
// What gRPC may buffer for all connections.
constexpr size_t kTransportBytes = 512 << 20;

// gRPC's reflection library, once linked, adds its plugin to every server of the process: this one
// has it if wanted.
class Reflection final : public grpc::ServerBuilderOption {
 public:
  explicit Reflection(bool wanted) : wanted_(wanted) {}
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    auto own = std::make_unique<grpc::reflection::ProtoServerReflectionPlugin>();
    const auto same = [&own](const auto& plugin) { return plugin->name() == own->name(); };
    plugins->erase(std::remove_if(plugins->begin(), plugins->end(), same), plugins->end());
    if (wanted_) plugins->push_back(std::move(own));
  }

 private:
  const bool wanted_;
};

Durability DurabilityOf(const FleetFile& fleet) {
  if (fleet.durability == "wal") return Durability::kWal;
  return fleet.durability == "checkpoint" ? Durability::kCheckpoint : Durability::kNone;
}

// Without destructors: what they would still write is not to be written any more.
[[noreturn]] void EndProcess(const absl::Status& why) {
  spdlog::critical("ends at once: {}", why.ToString());
  spdlog::default_logger()->flush();
  std::_Exit(kExitFatal);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(ServerOptions options) {
  SHARDSTEP_RETURN_IF_ERROR(options.Validate());
  if (options.fatal == nullptr) options.fatal = EndProcess;
  SHARDSTEP_ASSIGN_OR_RETURN(std::unique_ptr<DirectoryLock> lock,
                             DirectoryLock::Take(options.data_directory));
  SHARDSTEP_ASSIGN_OR_RETURN(std::unique_ptr<Catalog> catalog,
                             Catalog::Open(PosixFileSystem(), options.data_directory));
  SHARDSTEP_ASSIGN_OR_RETURN(const uint32_t numeric_fingerprint, NumericFingerprint());
  std::unique_ptr<Server> server(
      new Server(std::move(options), std::move(lock), std::move(catalog), numeric_fingerprint));
  SHARDSTEP_RETURN_IF_ERROR(server->Listen());
  SHARDSTEP_RETURN_IF_ERROR(server->WriteAddressFile());
  spdlog::info(
      "shardstep-server {}: server rank {} at {}, incarnation {}, numeric fingerprint {:08x}",
      kVersion, server->options_.server_rank, server->address_, server->incarnation(),
      numeric_fingerprint);
  const absl::Status served = server->TryServe();
  if (absl::IsNotFound(served)) {
    spdlog::info("waiting for fleet file \"{}\"", server->options_.fleet_file);
  } else if (!served.ok()) {
    return served;
  }
  server->ticker_ = std::thread([server = server.get()] { server->Tick(); });
  return server;
}

Server::Server(ServerOptions options, std::unique_ptr<DirectoryLock> lock,
               std::unique_ptr<Catalog> catalog, uint32_t numeric_fingerprint)
    : options_(std::move(options)),
      lock_(std::move(lock)),
      catalog_(std::move(catalog)),
      pool_(options_.threads),
      disk_(kDiskThreads),
      log_(kLogThreads),
      state_(
          {options_.server_rank, catalog_->incarnation(), numeric_fingerprint, options_.fleet_file},
          options_.clock == nullptr ? &steady_clock_ : options_.clock),
      peers_(&state_.identity(), &state_.clock()),
      coordinator_service_(&state_),
      shards_service_(&state_),
      peer_service_(&state_) {}

Server::~Server() { Shutdown(absl::ZeroDuration()); }

absl::Status Server::Listen() {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  ConfigureServer(&builder, kTransportBytes);
  builder.SetOption(std::make_unique<Reflection>(options_.reflection));
  builder.AddListeningPort(options_.listen, ServerCredentials(), &port_);
  builder.RegisterService(&coordinator_service_);
  builder.RegisterService(&shards_service_);
  builder.RegisterService(&peer_service_);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port_ == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on \"", options_.listen,
                                               "\": not an address of this machine, or in use"));
  }
  SetHealth(false);
  address_ = absl::StrCat(options_.listen.substr(0, options_.listen.rfind(':')), ":", port_);
  return absl::OkStatus();
}

absl::Status Server::WriteAddressFile() const {
  if (options_.address_file.empty()) return absl::OkStatus();
  // Whoever waits for the file must not see half of it.
  const std::string temporary = absl::StrCat(options_.address_file, ".tmp");
  std::ofstream file(temporary);
  file << address_ << "\n";
  file.close();
  if (!file || std::rename(temporary.c_str(), options_.address_file.c_str()) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("address file \"", options_.address_file, "\": cannot be written"));
  }
  return absl::OkStatus();
}

absl::Status Server::TryServe() {
  SHARDSTEP_ASSIGN_OR_RETURN(FleetFile fleet, FleetFile::Load(options_.fleet_file));
  if (options_.server_rank >= static_cast<int>(fleet.servers.size())) {
    return absl::FailedPreconditionError(
        absl::StrCat("fleet file \"", options_.fleet_file, "\" has ", fleet.servers.size(),
                     " servers, and this is server rank ", options_.server_rank));
  }
  NodeOptions node_options;
  node_options.server_rank = options_.server_rank;
  node_options.servers = static_cast<int>(fleet.servers.size());
  node_options.lease = options_.lease;
  node_options.shard_memory = options_.shard_memory;
  node_options.push_memory = options_.push_memory;
  node_options.snapshot_memory = options_.snapshot_memory;
  node_options.numeric_fingerprint = state_.identity().numeric_fingerprint;
  node_options.durability = DurabilityOf(fleet);
  node_options.checkpoint_interval = options_.checkpoint_interval;
  node_options.log_bytes = options_.log_size;
  checkpoints_ = std::make_unique<CheckpointStore>(&files_, fleet.checkpoints, options_.server_rank,
                                                   options_.keep_last);
  NodeEnvironment environment;
  environment.catalog = catalog_.get();
  environment.checkpoints = checkpoints_.get();
  environment.files = &files_;
  environment.executor = &pool_;
  environment.disk = &disk_;
  environment.log = &log_;
  environment.clock = &state_.clock();
  environment.open_peer = [this](int server, const std::string& optimizer,
                                 std::weak_ptr<Coordinator> coordinator) {
    peers_.Open(server, optimizer, std::move(coordinator));
  };
  environment.fatal = options_.fatal;
  const auto node = std::make_shared<Node>(node_options, environment);
  const std::string summary = fleet.Summary();
  // Before any call can make further coordinators, which the node then connects itself.
  peers_.Begin(fleet, node.get());
  node->ConnectPeers();
  state_.Serve(std::move(fleet), node);
  SetHealth(true);
  spdlog::info("serving fleet {}", summary);
  return absl::OkStatus();
}

void Server::Tick() {
  absl::Status waiting = state_.Serving().status();
  for (;;) {
    {
      MutexLock lock(&mutex_);
      if (!stopping_) wake_.WaitFor(&mutex_, waiting.ok() ? kTick : kFleetFilePoll);
      if (stopping_) return;
    }
    if (waiting.ok()) {
      if (const auto node = state_.Serving(); node.ok()) (*node)->Tick();
      peers_.Tick();
      continue;
    }
    const absl::Status served = TryServe();
    if (served == waiting) continue;
    waiting = served;
    if (!served.ok() && !absl::IsNotFound(served)) {
      spdlog::error("{}", served.ToString());
      state_.StillWaiting(served);
    }
  }
}

void Server::SetHealth(bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(serving);
}

void Server::Shutdown(absl::Duration grace) {
  {
    MutexLock lock(&mutex_);
    if (std::exchange(stopping_, true)) return;
  }
  wake_.NotifyAll();
  if (ticker_.joinable()) ticker_.join();
  if (server_ == nullptr) return;

  const absl::Time deadline = absl::Now() + grace;
  const absl::StatusOr<std::shared_ptr<Node>> node = state_.Serving();
  state_.StopServing();
  SetHealth(false);
  if (node.ok()) {
    spdlog::info("draining, for {} at most", absl::FormatDuration(grace));
    const auto drained = std::make_shared<std::promise<void>>();
    (*node)->Drain([drained] { drained->set_value(); });
    drained->get_future().wait_for(absl::ToChronoNanoseconds(grace));
  }
  state_.streams().CloseAll(state_.Serving().status());
  peers_.Stop();
  server_->Shutdown(absl::ToChronoTime(deadline));
  // A log that is stopped half-way would be taken for one that cannot be written.
  log_.Stop();
  files_.Stop();
  disk_.Stop();
  pool_.Stop();
  spdlog::info("server rank {} has stopped", options_.server_rank);
}

}  // namespace shardstep
