#include "shardstep/tests/simulation/sim_peers.h"

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

constexpr absl::Duration kReconnectDelay = absl::Milliseconds(200);

template <typename Message>
Message Travelled(const Message& message) {
  Message copy;
  copy.ParseFromString(message.SerializeAsString());
  return copy;
}

}  // namespace

void SimPeers::Connect(const Link& link) {
  const auto coordinator = link.coordinator.lock();
  if (coordinator == nullptr) return;
  if (link.server == own_rank_) return ConnectLocal(link, coordinator);
  const std::shared_ptr<SimStream> stream =
      outside_.network->Open(process_, outside_.find(link.server), StreamKind::kPeer,
                             {[link](const std::string& bytes) {
                                v1::PeerReply reply;
                                const auto own = link.coordinator.lock();
                                if (own != nullptr && reply.ParseFromString(bytes)) {
                                  own->OnPeerReply(link.server, std::move(reply));
                                }
                              },
                              [this, link](const absl::Status& status) { OnEnd(link, status); }});
  coordinator->ConnectPeer(link.server, [stream](const v1::PeerMessage& message) {
    stream->Send(SimStream::kCaller, message.SerializeAsString());
  });
}

void SimPeers::ConnectLocal(const Link& link, const std::shared_ptr<Coordinator>& coordinator) {
  const auto found = node_()->FindHost(link.optimizer, /*create=*/true);
  if (!found.ok()) return OnEnd(link, found.status());
  auto incarnation = std::make_shared<uint64_t>(0);
  coordinator->ConnectPeer(link.server,
                           [this, link, host = *found, incarnation](const v1::PeerMessage& sent) {
                             const v1::PeerMessage message = Travelled(sent);
                             outside_.observer->OnPeerMessage(message);
                             if (!message.has_hello()) return host->Receive(*incarnation, message);
                             *incarnation = message.hello().coordinator_incarnation();
                             host->Connect(
                                 message.hello(),
                                 [this, link, incarnation](const v1::PeerReply& reply) {
                                   outside_.observer->OnPeerReply(own_rank_, *incarnation, reply);
                                   const auto own = link.coordinator.lock();
                                   if (own != nullptr)
                                     own->OnPeerReply(link.server, Travelled(reply));
                                 },
                                 [this, link](const absl::Status& status) {
                                   if (!status.ok()) OnEnd(link, status);
                                 });
                           });
}

void SimPeers::OnEnd(const Link& link, const absl::Status& status) {
  if (const auto coordinator = link.coordinator.lock()) {
    coordinator->DisconnectPeer(link.server);
    if (absl::IsFailedPrecondition(status) && ReasonOf(status) == v1::FENCED) {
      outside_.simulation->probes().Hit("coordinator_superseded");
      coordinator->OnSuperseded(link.server, status);
    }
  }
  outside_.simulation->After(
      outside_.simulation->random().Between(absl::ZeroDuration(), kReconnectDelay), process_,
      "connect", [this, link] { Connect(link); });
}

SimStream::End SimPeers::Accept(const std::shared_ptr<SimStream>& stream) {
  struct Follower {
    std::shared_ptr<ShardHost> host;
    uint64_t incarnation = 0;
  };
  auto follower = std::make_shared<Follower>();
  const std::weak_ptr<SimStream> weak = stream;
  return {[this, follower, weak](const std::string& bytes) {
            const auto stream = weak.lock();
            v1::PeerMessage message;
            if (stream == nullptr || !message.ParseFromString(bytes)) return;
            outside_.observer->OnPeerMessage(message);
            if (follower->host != nullptr) {
              return follower->host->Receive(follower->incarnation, std::move(message));
            }
            const std::string optimizer = message.hello().optimizer();
            auto host = node_()->FindHost(optimizer, /*create=*/true);
            if (!host.ok()) return stream->Break(host.status());
            follower->host = *host;
            follower->incarnation = message.hello().coordinator_incarnation();
            (*host)->Connect(
                message.hello(),
                [this, weak, incarnation = follower->incarnation](const v1::PeerReply& reply) {
                  outside_.observer->OnPeerReply(own_rank_, incarnation, reply);
                  if (const auto stream = weak.lock()) {
                    stream->Send(SimStream::kCallee, reply.SerializeAsString());
                  }
                },
                [this, follower, weak, optimizer](const absl::Status& status) {
                  const auto stream = weak.lock();
                  if (stream == nullptr) return;
                  if (!status.ok()) return stream->Break(status);
                  Replace(optimizer, {follower->incarnation, weak});
                });
          },
          nullptr};
}

void SimPeers::Replace(const std::string& optimizer, Followed followed) {
  Followed& last = followed_[optimizer];
  if (last.coordinator_incarnation > followed.coordinator_incarnation) return;
  const auto older = last.stream.lock();
  const bool replaced = last.coordinator_incarnation < followed.coordinator_incarnation;
  last = std::move(followed);
  if (older == nullptr || !replaced) return;
  older->Break(
      MakeError(absl::StatusCode::kFailedPrecondition, "the coordinator was replaced", v1::FENCED));
}

}  // namespace shardstep
