#include "shardstep/client/grpc_connection.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "shardstep/client/grpc_byte_stream.h"
#include "shardstep/client/read_streams.h"
#include "shardstep/client/step_stream.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/v1/coordinator.grpc.pb.h"
#include "shardstep/v1/shards.grpc.pb.h"
#include "shardstep/wire/credentials.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/status.h"
#include "shardstep/wire/transport.h"

namespace shardstep::internal {
namespace {

constexpr int kCoordinator = 0;
// Of one attempt. A server answers long polls before their deadline; one that does not answer at
// all is given up sooner by the transport's keepalive.
constexpr absl::Duration kAttemptTimeout = absl::Seconds(30);
// Of an attempt that a server works on until it answers.
constexpr absl::Duration kLongAttemptTimeout = absl::Seconds(590);

std::chrono::system_clock::time_point DeadlineIn(absl::Duration timeout) {
  return std::chrono::system_clock::now() + absl::ToChronoMicroseconds(timeout);
}

// The channels to one address. Immutable.
struct Channels {
  explicit Channels(std::string server_address) : address(std::move(server_address)) {
    const auto make = [this] {
      return grpc::CreateCustomChannel(address, ClientCredentials(), MakeChannelArguments());
    };
    calls = make();
    pushes = make();
    tensors = make();
    coordinator = v1::Coordinator::NewStub(calls);
    shards = v1::Shards::NewStub(calls);
    steps = std::make_unique<StepStream>([this](StreamListener* listener) {
      return StartGrpcByteStream(calls, "/shardstep.v1.Coordinator/Steps", std::nullopt, listener);
    });
  }

  const std::string address;
  std::shared_ptr<grpc::Channel> calls;
  std::shared_ptr<grpc::Channel> pushes;
  std::shared_ptr<grpc::Channel> tensors;
  std::unique_ptr<v1::Coordinator::Stub> coordinator;
  std::unique_ptr<v1::Shards::Stub> shards;
  std::unique_ptr<StepStream> steps;
  const std::shared_ptr<ReadStreams> reads = std::make_shared<ReadStreams>();
};

// Blocks until the call that `start` makes has ended. Not gRPC's blocking calls: threads that wait
// in those take turns at polling, and wake each other for it.
template <typename Reply, typename Start>
absl::StatusOr<Reply> Await(absl::Duration timeout, Start&& start) {
  grpc::ClientContext context;
  context.set_deadline(DeadlineIn(timeout));
  Reply reply;
  const auto ended = std::make_shared<std::promise<grpc::Status>>();
  start(&context, &reply, [ended](grpc::Status status) { ended->set_value(std::move(status)); });
  const absl::Status status = FromGrpcStatus(ended->get_future().get());
  if (!status.ok()) return status;
  return reply;
}

// Calls `attempt`, with the time that it has, until it succeeds, fails for good or time is up.
template <typename Reply, typename Attempt>
absl::StatusOr<Reply> CallWithRetry(const RetryPolicy& policy, absl::Time deadline,
                                    absl::Duration attempt_timeout,
                                    const std::function<std::string()>& server_name,
                                    Attempt&& attempt) {
  Retry retry(policy, deadline);
  while (true) {
    absl::StatusOr<Reply> reply = attempt(retry.AttemptTimeout(attempt_timeout));
    // Of a typed call: what is damaged is a file, which the next attempt finds as it is.
    if (reply.ok() || absl::IsDataLoss(reply.status())) return reply;
    if (!retry.Again(reply.status())) return retry.Explain(server_name(), reply.status());
  }
}

// Tells a connection when a stream ended because its server was away.
class WatchedListener final : public StreamListener {
 public:
  WatchedListener(StreamListener* listener, std::function<void()> unavailable)
      : listener_(listener), unavailable_(std::move(unavailable)) {}

  void OnSent() override { listener_->OnSent(); }
  void OnReceived(const grpc::ByteBuffer& message) override { listener_->OnReceived(message); }
  bool WantsMore() override { return listener_->WantsMore(); }
  void OnClosed(const absl::Status& status) override {
    if (status.code() == absl::StatusCode::kUnavailable) unavailable_();
    listener_->OnClosed(status);
  }

 private:
  StreamListener* const listener_;
  const std::function<void()> unavailable_;
};

class WatchedStream final : public ByteStream {
 public:
  WatchedStream(std::unique_ptr<WatchedListener> listener, std::unique_ptr<ByteStream> stream)
      : listener_(std::move(listener)), stream_(std::move(stream)) {}

  void Send(grpc::ByteBuffer&& message, bool another_follows) override {
    stream_->Send(std::move(message), another_follows);
  }
  void CloseSending() override { stream_->CloseSending(); }
  void Resume() override { stream_->Resume(); }
  void Cancel() override { stream_->Cancel(); }

 private:
  const std::unique_ptr<WatchedListener> listener_;
  const std::unique_ptr<ByteStream> stream_;
};

class GrpcConnection final : public Connection {
 public:
  GrpcConnection(const FleetFile& fleet, std::string fleet_path, RetryPolicy policy)
      : fleet_path_(std::move(fleet_path)),
        fleet_hash_(fleet.Hash()),
        policy_(std::move(policy)),
        servers_(fleet.servers.size()) {
    for (size_t i = 0; i < servers_.size(); ++i) {
      servers_[i] = std::make_shared<const Channels>(fleet.servers[i]);
    }
  }

  int num_servers() const override {
    MutexLock lock(&mutex_);
    return static_cast<int>(servers_.size());
  }

  std::string ServerAddress(int server_rank) const override {
    return ChannelsOf(server_rank)->address;
  }

// The coordinator's unary methods differ in their names only.
#define SHARDSTEP_COORDINATOR_CALL(Method)                                                      \
  absl::StatusOr<v1::Method##Reply> Method(const v1::Method##Request& request,                  \
                                           absl::Time deadline) override {                      \
    return Call<v1::Method##Reply>(                                                             \
        kCoordinator, deadline, [&request](const Channels& to, absl::Duration timeout) {        \
          return Await<v1::Method##Reply>(timeout, [&](auto* context, auto* reply, auto done) { \
            to.coordinator->async()->Method(context, &request, reply, std::move(done));         \
          });                                                                                   \
        });                                                                                     \
  }
  SHARDSTEP_COORDINATOR_CALL(OpenSession)
  SHARDSTEP_COORDINATOR_CALL(RenewSession)
  SHARDSTEP_COORDINATOR_CALL(CloseSession)
  SHARDSTEP_COORDINATOR_CALL(Propose)
  SHARDSTEP_COORDINATOR_CALL(Describe)
  SHARDSTEP_COORDINATOR_CALL(ListOptimizers)
  SHARDSTEP_COORDINATOR_CALL(ListSessions)
  SHARDSTEP_COORDINATOR_CALL(StepStatus)
  SHARDSTEP_COORDINATOR_CALL(OpenSnapshot)
  SHARDSTEP_COORDINATOR_CALL(RenewSnapshot)
  SHARDSTEP_COORDINATOR_CALL(CloseSnapshot)
  SHARDSTEP_COORDINATOR_CALL(Checkpoint)
  SHARDSTEP_COORDINATOR_CALL(ListCheckpoints)
#undef SHARDSTEP_COORDINATOR_CALL

  absl::StatusOr<v1::VerifyCheckpointReply> VerifyCheckpoint(
      const v1::VerifyCheckpointRequest& request, absl::Time deadline) override {
    return Call<v1::VerifyCheckpointReply>(
        kCoordinator, deadline,
        [&request](const Channels& to, absl::Duration timeout) {
          return Await<v1::VerifyCheckpointReply>(timeout, [&](auto* context, auto* reply,
                                                               auto done) {
            to.coordinator->async()->VerifyCheckpoint(context, &request, reply, std::move(done));
          });
        },
        kLongAttemptTimeout);
  }

  absl::StatusOr<v1::StepReply> Step(const v1::StepRequest& request, absl::Time deadline) override {
    return Call<v1::StepReply>(
        kCoordinator, deadline,
        [&request](const Channels& to, absl::Duration timeout) -> absl::StatusOr<v1::StepReply> {
          SHARDSTEP_ASSIGN_OR_RETURN(StepStream::Pending step, to.steps->Start(request, timeout));
          return step.Await();
        });
  }

  absl::StatusOr<v1::HelloReply> Hello(int server_rank, const v1::HelloRequest& request,
                                       absl::Time deadline) override {
    return Call<v1::HelloReply>(
        server_rank, deadline, [&request](const Channels& to, absl::Duration timeout) {
          return Await<v1::HelloReply>(timeout, [&](auto* context, auto* reply, auto done) {
            to.shards->async()->Hello(context, &request, reply, std::move(done));
          });
        });
  }

  std::unique_ptr<ByteStream> StartPush(int server_rank, StreamListener* listener) override {
    return Watched(listener, [&](StreamListener* watched) {
      return StartGrpcByteStream(ChannelsOf(server_rank)->pushes,
                                 "/shardstep.v1.Shards/PushGradients", std::nullopt, watched);
    });
  }

  std::unique_ptr<ByteStream> StartWrite(int server_rank, absl::Time deadline,
                                         StreamListener* listener) override {
    return Watched(listener, [&](StreamListener* watched) {
      return StartGrpcByteStream(ChannelsOf(server_rank)->tensors,
                                 "/shardstep.v1.Shards/WriteState", StreamDeadline(deadline),
                                 watched);
    });
  }

  std::unique_ptr<ByteStream> StartRead(int server_rank, const v1::ReadStateRequest& request,
                                        StreamListener* listener) override {
    FollowFleetFileIfStale();
    const std::shared_ptr<const Channels> channels = ChannelsOf(server_rank);
    return channels->reads->Start(
        request, listener, policy_.timer->Now(), [&](StreamListener* events) {
          return Watched(events, [&](StreamListener* watched) {
            return StartGrpcByteStream(channels->tensors, "/shardstep.v1.Shards/ReadState",
                                       DeadlineIn(kReadCallLifetime), watched);
          });
        });
  }

 private:
  template <typename Reply, typename Function>
  absl::StatusOr<Reply> Call(int server_rank, absl::Time deadline, Function&& function,
                             absl::Duration attempt_timeout = kAttemptTimeout) {
    return CallWithRetry<Reply>(
        policy_, deadline, attempt_timeout, [this, server_rank] { return ServerName(server_rank); },
        [this, server_rank, &function](absl::Duration timeout) {
          const std::shared_ptr<const Channels> channels = ChannelsOf(server_rank);
          absl::StatusOr<Reply> reply = function(*channels, timeout);
          // A server that hangs may have been replaced, too.
          if (absl::IsUnavailable(reply.status()) || absl::IsDeadlineExceeded(reply.status())) {
            FollowFleetFile();
          }
          return reply;
        });
  }

  template <typename Start>
  std::unique_ptr<ByteStream> Watched(StreamListener* listener, Start&& start) {
    FollowFleetFileIfStale();
    auto watched = std::make_unique<WatchedListener>(listener, [this] { stale_ = true; });
    std::unique_ptr<ByteStream> stream = start(watched.get());
    return std::make_unique<WatchedStream>(std::move(watched), std::move(stream));
  }

  std::chrono::system_clock::time_point StreamDeadline(absl::Time deadline) const {
    return DeadlineIn(
        std::clamp(deadline - policy_.timer->Now(), absl::Milliseconds(1), kLongAttemptTimeout));
  }

  std::shared_ptr<const Channels> ChannelsOf(int server_rank) const {
    MutexLock lock(&mutex_);
    return servers_[server_rank];
  }

  void FollowFleetFileIfStale() {
    if (stale_.exchange(false)) FollowFleetFile();
  }

  // A file that cannot be read, or that names another fleet, changes nothing: the addresses known
  // are tried on.
  void FollowFleetFile() {
    if (fleet_path_.empty()) return;
    const absl::StatusOr<FleetFile> fleet = FleetFile::Load(fleet_path_);
    std::vector<std::shared_ptr<const Channels>> replaced;  // freed outside the lock
    MutexLock lock(&mutex_);
    if (!fleet.ok() || fleet->Hash() != fleet_hash_) return;
    for (size_t i = 0; i < servers_.size(); ++i) {
      if (fleet->servers[i] == servers_[i]->address) continue;
      replaced.push_back(
          std::exchange(servers_[i], std::make_shared<const Channels>(fleet->servers[i])));
    }
  }

  const std::string fleet_path_;
  const std::string fleet_hash_;
  const RetryPolicy policy_;
  std::atomic<bool> stale_{false};  // a stream found its server away since the file was read

  mutable Mutex mutex_;
  std::vector<std::shared_ptr<const Channels>> servers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<Connection> MakeGrpcConnection(const FleetFile& fleet, std::string fleet_path,
                                               const RetryPolicy& policy) {
  return std::make_unique<GrpcConnection>(fleet, std::move(fleet_path), policy);
}

absl::StatusOr<FleetFile> AskForFleet(const std::string& address, const RetryPolicy& policy,
                                      absl::Time deadline) {
  const Channels channels(address);
  v1::HelloRequest request;
  request.set_server_rank(-1);
  SHARDSTEP_ASSIGN_OR_RETURN(
      const v1::HelloReply reply,
      CallWithRetry<v1::HelloReply>(
          policy, deadline, kAttemptTimeout,
          [&address] { return absl::StrCat("server at ", address); },
          [&](absl::Duration timeout) -> absl::StatusOr<v1::HelloReply> {
            absl::StatusOr<v1::HelloReply> answer =
                Await<v1::HelloReply>(timeout, [&](auto* context, auto* out, auto done) {
                  channels.shards->async()->Hello(context, &request, out, std::move(done));
                });
            if (answer.ok() && answer->addresses().empty()) {
              return absl::UnavailableError("waits for its fleet file");
            }
            return answer;
          }));
  FleetFile fleet;
  fleet.name = reply.fleet_name();
  fleet.durability = reply.durability();
  fleet.checkpoints = reply.checkpoints();
  fleet.servers.assign(reply.addresses().begin(), reply.addresses().end());
  return fleet;
}

}  // namespace shardstep::internal
