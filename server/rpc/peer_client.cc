#include "shardstep/server/rpc/peer_client.h"

#include <grpcpp/create_channel.h>

#include <algorithm>
#include <utility>

#include "absl/status/statusor.h"
#include "shardstep/server/node.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/wire/credentials.h"
#include "shardstep/wire/fleet_file.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/rich_status.h"
#include "shardstep/wire/transport.h"
#include "spdlog/spdlog.h"

namespace shardstep {

void PeerClient::Begin(const FleetFile& fleet, Node* node) {
  MutexLock lock(&mutex_);
  fleet_ = fleet;
  node_ = node;
}

void PeerClient::Open(int server, const std::string& optimizer,
                      std::weak_ptr<Coordinator> coordinator) {
  auto link = std::make_shared<Link>();
  link->server = server;
  link->optimizer = optimizer;
  link->coordinator = std::move(coordinator);
  link->delay = kFirstReconnectDelay;
  link->next_attempt = absl::InfiniteFuture();
  {
    MutexLock lock(&mutex_);
    if (stopping_) return;
    links_.push_back(link);
  }
  Connect(link);
}

void PeerClient::ConnectLocal(const std::shared_ptr<Link>& link,
                              const std::shared_ptr<Coordinator>& coordinator) {
  Node* node;
  {
    MutexLock lock(&mutex_);
    if (stopping_) return;
    node = node_;
  }
  const auto found = node->FindHost(link->optimizer, /*create=*/true);
  if (!found.ok()) return OnEnd(link, found.status());
  auto incarnation = std::make_shared<uint64_t>(0);
  coordinator->ConnectPeer(link->server, [this, link, host = *found,
                                          incarnation](std::vector<v1::PeerMessage> messages) {
    // A hello travels alone.
    if (!messages[0].has_hello()) return host->Receive(*incarnation, std::move(messages));
    *incarnation = messages[0].hello().coordinator_incarnation();
    host->Connect(
        messages[0].hello(),
        [this, link](std::vector<v1::PeerReply> replies) { OnReplies(link, std::move(replies)); },
        [this, link](const absl::Status& status) {
          if (!status.ok()) OnEnd(link, status);
        });
  });
}

void PeerClient::Connect(const std::shared_ptr<Link>& link) {
  const std::shared_ptr<Coordinator> coordinator = link->coordinator.lock();
  if (coordinator == nullptr) return;
  if (link->server == identity_.server_rank) return ConnectLocal(link, coordinator);
  v1::PeerHello greeting;
  greeting.set_server_rank(link->server);
  greeting.set_numeric_fingerprint(identity_.numeric_fingerprint);
  std::shared_ptr<FollowStream> stream;
  {
    MutexLock lock(&mutex_);
    if (stopping_) return;
    greeting.set_fleet_hash(fleet_.Hash());
    greeting.set_fleet_summary(fleet_.Summary());
    stream = std::make_shared<FollowStream>(
        StubFor(link->server),
        FollowStream::Events{[this, link](std::vector<v1::PeerReply> replies) {
                               OnReplies(link, std::move(replies));
                             },
                             [this, link](const absl::Status& status) { OnEnd(link, status); }});
    link->stream = stream;
  }
  const std::weak_ptr<FollowStream> open = stream;
  coordinator->ConnectPeer(link->server, [open, greeting](std::vector<v1::PeerMessage> messages) {
    if (messages[0].has_hello()) messages[0].mutable_hello()->MergeFrom(greeting);
    if (const auto stream = open.lock()) stream->Send(std::move(messages));
  });
  // Only now, so that the coordinator hears of the stream's end after it heard of its begin.
  stream->Start();
}

void PeerClient::OnReplies(const std::shared_ptr<Link>& link, std::vector<v1::PeerReply> replies) {
  // A welcome is the first of a stream.
  if (replies[0].has_welcome()) {
    spdlog::info("optimizer \"{}\": server {} follows, incarnation {}", link->optimizer,
                 link->server, replies[0].welcome().incarnation());
    MutexLock lock(&mutex_);
    link->delay = kFirstReconnectDelay;
    link->last_error.clear();
  }
  if (const auto coordinator = link->coordinator.lock()) {
    coordinator->OnPeerReplies(link->server, std::move(replies));
  }
}

void PeerClient::OnEnd(const std::shared_ptr<Link>& link, const absl::Status& status) {
  if (const auto coordinator = link->coordinator.lock()) {
    coordinator->DisconnectPeer(link->server);
    if (ReasonOf(status) == v1::FENCED && !ReplacedHere(*link)) {
      coordinator->OnSuperseded(link->server, status);
    }
  }
  const std::string error = status.ToString();
  bool tell = false;
  {
    MutexLock lock(&mutex_);
    // Attempts that fail alike are one event.
    tell = !stopping_ && link->last_error != error;
    link->last_error = error;
  }
  if (tell) {
    spdlog::warn("optimizer \"{}\": no stream to server {}: {}", link->optimizer, link->server,
                 error);
  }
  MutexLock lock(&mutex_);
  if (link->stream != nullptr) ended_streams_.push_back(std::move(link->stream));
  link->next_attempt = clock_.Now() + link->delay;
  link->delay = std::min(2 * link->delay, kMaxReconnectDelay);
  ended_.NotifyAll();
}

bool PeerClient::ReplacedHere(const Link& link) {
  MutexLock lock(&mutex_);
  return std::any_of(links_.begin(), links_.end(), [&link](const auto& other) {
    return other.get() != &link && other->server == link.server &&
           other->optimizer == link.optimizer && !other->coordinator.expired();
  });
}

void PeerClient::Tick() {
  std::vector<std::shared_ptr<Link>> due;
  std::vector<std::shared_ptr<FollowStream>> orphans;
  std::vector<std::shared_ptr<FollowStream>> ended;  // destroyed without the lock
  {
    MutexLock lock(&mutex_);
    ended.swap(ended_streams_);
    const absl::Time now = clock_.Now();
    const auto forgotten = [](const std::shared_ptr<Link>& link) {
      return link->coordinator.expired() && link->stream == nullptr;
    };
    links_.erase(std::remove_if(links_.begin(), links_.end(), forgotten), links_.end());
    for (const auto& link : links_) {
      if (link->coordinator.expired()) {
        orphans.push_back(link->stream);
      } else if (link->stream == nullptr && now >= link->next_attempt) {
        link->next_attempt = absl::InfiniteFuture();
        due.push_back(link);
      }
    }
  }
  for (const auto& stream : orphans) stream->Cancel();
  if (due.empty()) return;
  ReadAddresses();
  for (const auto& link : due) Connect(link);
}

void PeerClient::Stop() {
  std::vector<std::shared_ptr<FollowStream>> streams;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    for (const auto& link : links_) {
      if (link->stream != nullptr) streams.push_back(link->stream);
    }
  }
  for (const auto& stream : streams) stream->Cancel();
  MutexLock lock(&mutex_);
  for (const auto& link : links_) {
    while (link->stream != nullptr) ended_.Wait(&mutex_);
  }
  streams = std::exchange(ended_streams_, {});  // destroyed without the lock
}

std::shared_ptr<v1::Peer::Stub> PeerClient::StubFor(int server) {
  const std::string& address = fleet_.servers[server];
  Connection& connection = connections_[server];
  if (connection.address != address) {
    connection.address = address;
    connection.stub = v1::Peer::NewStub(
        grpc::CreateCustomChannel(address, ClientCredentials(), MakeChannelArguments()));
  }
  return connection.stub;
}

void PeerClient::ReadAddresses() {
  const absl::StatusOr<FleetFile> fleet = FleetFile::Load(identity_.fleet_file);
  if (!fleet.ok()) return;
  MutexLock lock(&mutex_);
  // Another fleet's file says nothing about this one's servers.
  if (fleet->Hash() == fleet_.Hash()) fleet_ = *fleet;
}

}  // namespace shardstep
