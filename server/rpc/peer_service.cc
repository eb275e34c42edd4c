#include "shardstep/server/rpc/peer_service.h"

#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "shardstep/server/node.h"
#include "shardstep/server/rpc/bidi_stream.h"
#include "shardstep/server/rpc/greeting.h"
#include "shardstep/server/rpc/paged_messages.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {

class PeerService::FollowerStream final : public BidiStream<v1::PeerMessage, v1::PeerReply>,
                                          public std::enable_shared_from_this<FollowerStream> {
 public:
  explicit FollowerStream(PeerService* service)
      : BidiStream(&service->state_->streams()), service_(service), state_(service->state_) {}

 private:
  void OnMessage(v1::PeerMessage& received) override {
    auto taken = reader_.Take(std::move(received));
    if (!taken.ok()) Close(taken.status());
    if (!taken.ok() || taken->empty()) return ReadNext();
    // A hello travels alone: whatever stood behind it would not be for this server.
    if (host_ == nullptr) return Begin(taken->front());
    host_->Receive(followed_.coordinator_incarnation, *std::move(taken));
    ReadNext();
  }

  v1::PeerReply TakeNext(std::deque<v1::PeerReply>* queue) override { return TakeTogether(queue); }

  void Begin(const v1::PeerMessage& message) {
    const absl::StatusOr<std::shared_ptr<ShardHost>> host = Greet(message);
    if (!host.ok()) {
      Close(host.status());
      return ReadNext();
    }
    host_ = *host;
    const std::weak_ptr<FollowerStream> weak = weak_from_this();
    followed_ = {message.hello().coordinator_incarnation(), weak};
    host_->Connect(
        message.hello(),
        [weak](std::vector<v1::PeerReply> replies) {
          // They come from inside the host's serializer, one after the other.
          if (const auto stream = weak.lock()) stream->SendAll(ToPages(std::move(replies)));
        },
        [self = shared_from_this(), optimizer = message.hello().optimizer()](absl::Status status) {
          if (status.ok()) {
            self->service_->Replace(optimizer, self->followed_);
          } else {
            self->Close(status);
          }
          self->ReadNext();
        });
  }

  // The host of the optimizer that the first message is about.
  absl::StatusOr<std::shared_ptr<ShardHost>> Greet(const v1::PeerMessage& message) const {
    if (!message.has_hello()) {
      return absl::InvalidArgumentError("the first message of a peer is not a hello");
    }
    const v1::PeerHello& hello = message.hello();
    const ServerIdentity& identity = state_->identity();
    SHARDSTEP_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, state_->Serving());
    SHARDSTEP_RETURN_IF_ERROR(CheckServerRank(hello.server_rank(), identity.server_rank));
    SHARDSTEP_RETURN_IF_ERROR(CheckFleet(*state_->fleet(), hello.fleet_hash(),
                                         hello.fleet_summary(), identity.server_rank));
    if (hello.numeric_fingerprint() != identity.numeric_fingerprint) {
      return absl::FailedPreconditionError(absl::StrFormat(
          "server %d computes other bits than server %d: numeric fingerprints %08x and %08x; "
          "start all servers with --numerics=portable",
          identity.server_rank, kCoordinatorRank, identity.numeric_fingerprint,
          hello.numeric_fingerprint()));
    }
    return node->FindHost(hello.optimizer(), /*create=*/true);
  }

  PeerService* const service_;
  ServerState* const state_;
  PagedReader<v1::PeerMessage> reader_;
  // Written once, at the hello.
  std::shared_ptr<ShardHost> host_;  // null before
  Followed followed_;
};

void PeerService::Replace(const std::string& optimizer, Followed followed) {
  const uint64_t now = followed.coordinator_incarnation;
  std::shared_ptr<OpenStream> older;
  uint64_t before = 0;
  {
    MutexLock lock(&mutex_);
    Followed& last = followed_[optimizer];
    before = last.coordinator_incarnation;
    if (before > now) return;
    if (before < now) older = last.stream.lock();
    last = std::move(followed);
  }
  if (older == nullptr) return;
  older->Close(MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrFormat("coordinator incarnation %d was replaced by %d", before, now), v1::FENCED));
}

grpc::ServerBidiReactor<v1::PeerMessage, v1::PeerReply>* PeerService::Follow(
    grpc::CallbackServerContext*) {
  auto stream = std::make_shared<FollowerStream>(this);
  state_->streams().Add(stream);
  stream->Start();
  return stream.get();
}

}  // namespace shardstep
