#include "shardstep/server/rpc/peer_service.h"

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "shardstep/server/node.h"
#include "shardstep/server/rpc/bidi_stream.h"
#include "shardstep/server/rpc/greeting.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

class FollowerStream final : public BidiStream<v1::PeerMessage, v1::PeerReply>,
                             public std::enable_shared_from_this<FollowerStream> {
 public:
  explicit FollowerStream(ServerState* state) : BidiStream(&state->streams()), state_(state) {}

 private:
  void OnMessage(v1::PeerMessage& message) override {
    if (host_ != nullptr) {
      host_->Receive(std::move(message));
      return ReadNext();
    }
    const absl::StatusOr<std::shared_ptr<ShardHost>> host = Greet(message);
    if (!host.ok()) {
      Close(host.status());
      return ReadNext();
    }
    host_ = *host;
    const std::weak_ptr<FollowerStream> weak = weak_from_this();
    host_->Connect(
        message.hello(),
        [weak](v1::PeerReply reply) {
          if (const auto stream = weak.lock()) stream->Send(std::move(reply));
        },
        [self = shared_from_this()](const absl::Status& status) {
          if (!status.ok()) self->Close(status);
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

  ServerState* const state_;
  std::shared_ptr<ShardHost> host_;  // null before the hello
};

}  // namespace

grpc::ServerBidiReactor<v1::PeerMessage, v1::PeerReply>* PeerService::Follow(
    grpc::CallbackServerContext*) {
  auto stream = std::make_shared<FollowerStream>(state_);
  state_->streams().Add(stream);
  stream->Start();
  return stream.get();
}

}  // namespace shardstep
