#include "shardstep/tests/simulation/sim_server.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/tests/simulation/disk_probes.h"
#include "shardstep/tests/simulation/server_streams.h"
#include "shardstep/tests/simulation/workload.h"

namespace shardstep {
namespace {

constexpr char kDataDirectory[] = "/data";
constexpr char kCheckpointDirectory[] = "/checkpoints";
constexpr absl::Duration kTick = absl::Milliseconds(50);
constexpr int kKeepLast = 2;

template <typename Response>
Reply<Response> Serialized(Reply<std::string> reply) {
  return [reply = std::move(reply)](const absl::StatusOr<Response>& response) {
    if (!response.ok()) return reply(response.status());
    reply(response->SerializeAsString());
  };
}

double RandomRate(Random* random) { return 0.97 + 0.06 * random->Below(1000) / 1000; }

}  // namespace

SimServer::SimServer(Outside outside, const std::string& name, int rank, NodeOptions options,
                     std::unique_ptr<SimulatedFileSystem> disk)
    : outside_(std::move(outside)),
      rank_(rank),
      options_(std::move(options)),
      process_(name),
      clock_(outside_.simulation, RandomRate(&outside_.simulation->random()),
             absl::Seconds(outside_.simulation->random().Below(100000))),
      leases_(outside_.simulation, &clock_, options.lease),
      executor_(outside_.simulation, &process_, "work", absl::Milliseconds(2)),
      disk_executor_(outside_.simulation, &process_, "disk", absl::Milliseconds(40)),
      log_executor_(outside_.simulation, &process_, "log", absl::Milliseconds(4)),
      disk_(disk != nullptr ? std::move(disk) : std::make_unique<SimulatedFileSystem>()),
      peers_({outside_.simulation, outside_.network, outside_.observer, outside_.find}, rank,
             &process_, [this] { return node_.get(); }) {
  options_.server_rank = rank;
}

SimServer::~SimServer() {
  if (!process_.alive() && node_ == nullptr) return;
  outside_.simulation->Kill(&process_);
  disk_->Freeze();
  ClearAway();
}

void SimServer::Start() {
  outside_.simulation->Start(&process_);
  outside_.simulation->After(absl::ZeroDuration(), &process_, "boot", [this] { Boot(); });
}

void SimServer::Boot() {
  leases_.Begin();
  ProbeLog(disk_.get(), JoinPath(kDataDirectory, absl::StrCat("wal/", Workload::kOptimizer)),
           &outside_.simulation->probes());
  auto catalog = Catalog::Open(disk_.get(), kDataDirectory);
  if (!catalog.ok()) {
    outside_.simulation->Trace(absl::StrCat(process_.name(), ": ", catalog.status().ToString()));
    return Crash();
  }
  catalog_ = *std::move(catalog);
  checkpoint_files_ = std::make_unique<StoppableFileSystem>(outside_.checkpoints);
  checkpoints_ = std::make_unique<CheckpointStore>(
      checkpoint_files_.get(), kCheckpointDirectory, rank_, kKeepLast,
      [prefix = absl::StrCat(process_.name(), ".", process_.life(), "."), count = 0]() mutable {
        return absl::StrCat(prefix, ++count);
      });
  NodeEnvironment environment;
  environment.catalog = catalog_.get();
  environment.checkpoints = checkpoints_.get();
  environment.files = disk_.get();
  environment.executor = &executor_;
  environment.disk = &disk_executor_;
  environment.log = &log_executor_;
  environment.clock = &clock_;
  environment.open_peer = [this](int server, const std::string& optimizer,
                                 std::weak_ptr<Coordinator> coordinator) {
    peers_.Open(server, optimizer, std::move(coordinator));
  };
  environment.fatal = [this](const absl::Status& status) {
    outside_.simulation->Trace(absl::StrCat(process_.name(), " ends itself: ", status.ToString()));
    outside_.simulation->probes().Hit("server_ended_itself");
    Crash();
  };
  node_ = std::make_unique<Node>(options_, environment);
  if (rank_ == kCoordinatorRank) node_->ConnectPeers();
  Tick();
}

void SimServer::Tick() {
  if (!process_.alive()) return;
  node_->Tick();
  outside_.simulation->After(kTick, &process_, "tick", [this] { Tick(); });
}

void SimServer::Crash() {
  if (!process_.alive()) return;
  disk_->Freeze();
  if (checkpoint_files_ != nullptr) checkpoint_files_->Stop();
  outside_.simulation->Kill(&process_);
  outside_.network->OnDeath(&process_);
  // Code of it may be running.
  outside_.simulation->After(absl::ZeroDuration(), nullptr, "clear away", [this] {
    ClearAway();
    outside_.died(this);
  });
}

void SimServer::ClearAway() {
  outside_.network->Forget(&process_);
  outside_.simulation->Forget(&process_);
  node_.reset();
  // What died with the node may have asked for events.
  outside_.simulation->Forget(&process_);
  checkpoints_.reset();
  checkpoint_files_.reset();
  catalog_.reset();
  if (outside_.simulation->random().Chance(0.6)) {
    disk_->Crash([this] { return outside_.simulation->random().Next(); });
  } else {
    disk_->Restart();
  }
}

// ---- calls

template <typename Request, typename Response>
void SimServer::Wait(const std::string& bytes, absl::Duration remaining, std::function<bool()> gone,
                     Reply<std::string> reply, bool create,
                     void (Coordinator::*method)(Request, Caller, Reply<Response>)) {
  Request request;
  if (!request.ParseFromString(bytes)) return reply(absl::InternalError("request"));
  const auto coordinator = node_->FindCoordinator(request.header().optimizer(), create);
  if (!coordinator.ok()) return reply(coordinator.status());
  // Of what remains, a part is for the reply's way: as server/rpc has it.
  const Caller caller{clock_.Now() + remaining - std::min(absl::Seconds(1), remaining / 5),
                      std::move(gone)};
  (**coordinator.*method)(request, caller, Serialized<Response>(std::move(reply)));
}

template <typename Request, typename Response>
void SimServer::Ask(const std::string& bytes, Reply<std::string> reply,
                    void (Coordinator::*method)(Request, Reply<Response>)) {
  Request request;
  if (!request.ParseFromString(bytes)) return reply(absl::InternalError("request"));
  const auto coordinator = node_->FindCoordinator(request.header().optimizer(), /*create=*/false);
  if (!coordinator.ok()) return reply(coordinator.status());
  (**coordinator.*method)(request, Serialized<Response>(std::move(reply)));
}

void SimServer::Serve(Method method, const std::string& request, absl::Duration remaining,
                      std::function<bool()> gone, Reply<std::string> answer) {
  const Reply<std::string> reply = leases_.Watch(method, request, std::move(answer));
  switch (method) {
    case Method::kOpenSession:
      return Wait(request, remaining, gone, reply, /*create=*/true, &Coordinator::OpenSession);
    case Method::kRenewSession:
      return Ask(request, reply, &Coordinator::RenewSession);
    case Method::kPropose:
      return Wait(request, remaining, gone, reply, /*create=*/true, &Coordinator::Propose);
    case Method::kDescribe:
      return Ask(request, reply, &Coordinator::Describe);
    case Method::kStep:
      return Wait(request, remaining, gone, reply, /*create=*/false, &Coordinator::Step);
    case Method::kStepStatus:
      return Ask(request, reply, &Coordinator::StepStatus);
    case Method::kOpenSnapshot:
      return Wait(request, remaining, gone, reply, /*create=*/false, &Coordinator::OpenSnapshot);
    case Method::kCloseSnapshot:
      return Ask(request, reply, &Coordinator::CloseSnapshot);
    case Method::kCheckpoint:
      return Wait(request, remaining, gone, reply, /*create=*/false, &Coordinator::Checkpoint);
  }
}

SimStream::End SimServer::Accept(StreamKind kind, std::shared_ptr<SimStream> stream) {
  switch (kind) {
    case StreamKind::kPeer:
      return peers_.Accept(stream);
    case StreamKind::kPush:
      return ServePushes(node_.get(), stream);
    case StreamKind::kWrite:
      return ServeWrite(node_.get(), stream);
    case StreamKind::kRead:
      return ServeRead(node_.get(), stream);
  }
  return {};
}

}  // namespace shardstep
