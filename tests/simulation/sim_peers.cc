#include "shardstep/tests/simulation/sim_peers.h"

#include <string>
#include <utility>
#include <vector>

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

// As on the real wire, some of what is sent together arrives together.
template <typename Message>
void SendSome(Simulation* simulation, SimStream* stream, SimStream::Side side,
              const std::vector<Message>& messages) {
  if (messages.size() == 1 || simulation->random().Chance(0.5)) {
    for (const Message& message : messages) stream->Send(side, message.SerializeAsString());
    return;
  }
  Message together;
  for (const Message& message : messages) *together.add_group() = message;
  stream->Send(side, together.SerializeAsString());
}

// Nothing: no such message.
template <typename Message>
std::vector<Message> Received(const std::string& bytes) {
  Message message;
  if (!message.ParseFromString(bytes)) return {};
  if (message.group_size() == 0) return {std::move(message)};
  return {message.group().begin(), message.group().end()};
}

}  // namespace

void SimPeers::Connect(const Link& link) {
  const auto coordinator = link.coordinator.lock();
  if (coordinator == nullptr) return;
  if (link.server == own_rank_) return ConnectLocal(link, coordinator);
  const std::shared_ptr<SimStream> stream =
      outside_.network->Open(process_, outside_.find(link.server), StreamKind::kPeer,
                             {[link](const std::string& bytes) {
                                const auto own = link.coordinator.lock();
                                auto replies = Received<v1::PeerReply>(bytes);
                                if (own != nullptr && !replies.empty()) {
                                  own->OnPeerReplies(link.server, std::move(replies));
                                }
                              },
                              [this, link](const absl::Status& status) { OnEnd(link, status); }});
  coordinator->ConnectPeer(
      link.server, [this, stream](const std::vector<v1::PeerMessage>& messages) {
        SendSome(outside_.simulation, stream.get(), SimStream::kCaller, messages);
      });
}

void SimPeers::ConnectLocal(const Link& link, const std::shared_ptr<Coordinator>& coordinator) {
  const auto found = node_()->FindHost(link.optimizer, /*create=*/true);
  if (!found.ok()) return OnEnd(link, found.status());
  auto incarnation = std::make_shared<uint64_t>(0);
  coordinator->ConnectPeer(link.server, [this, link, host = *found,
                                         incarnation](const std::vector<v1::PeerMessage>& sent) {
    std::vector<v1::PeerMessage> messages;
    for (const v1::PeerMessage& message : sent) {
      messages.push_back(Travelled(message));
      outside_.observer->OnPeerMessage(messages.back());
    }
    if (!messages[0].has_hello()) return host->Receive(*incarnation, std::move(messages));
    *incarnation = messages[0].hello().coordinator_incarnation();
    host->Connect(
        messages[0].hello(),
        [this, link, incarnation](const std::vector<v1::PeerReply>& sent) {
          std::vector<v1::PeerReply> replies;
          for (const v1::PeerReply& reply : sent) {
            outside_.observer->OnPeerReply(own_rank_, *incarnation, reply);
            replies.push_back(Travelled(reply));
          }
          const auto own = link.coordinator.lock();
          if (own != nullptr) own->OnPeerReplies(link.server, std::move(replies));
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
            auto messages = Received<v1::PeerMessage>(bytes);
            if (stream == nullptr || messages.empty()) return;
            for (const auto& message : messages) outside_.observer->OnPeerMessage(message);
            if (follower->host != nullptr) {
              return follower->host->Receive(follower->incarnation, std::move(messages));
            }
            const v1::PeerHello hello = messages[0].hello();
            const std::string optimizer = hello.optimizer();
            auto host = node_()->FindHost(optimizer, /*create=*/true);
            if (!host.ok()) return stream->Break(host.status());
            follower->host = *host;
            follower->incarnation = hello.coordinator_incarnation();
            (*host)->Connect(
                hello,
                [this, weak,
                 incarnation = follower->incarnation](const std::vector<v1::PeerReply>& replies) {
                  for (const v1::PeerReply& reply : replies) {
                    outside_.observer->OnPeerReply(own_rank_, incarnation, reply);
                  }
                  if (const auto stream = weak.lock()) {
                    SendSome(outside_.simulation, stream.get(), SimStream::kCallee, replies);
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
