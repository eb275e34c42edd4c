// PeerClient: keeps the message streams of this server's coordinators to all servers open.
//
// To another server it is a Follow stream on one connection per server, opened again whenever it
// breaks, to the address that the fleet file then says. To the own server it is a call into its
// shard host, with the same messages. Where a server follows a newer coordinator, the coordinator
// is told.
#ifndef SHARDSTEP_SERVER_RPC_PEER_CLIENT_H_
#define SHARDSTEP_SERVER_RPC_PEER_CLIENT_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shardstep/server/clock.h"
#include "shardstep/server/coordinator.h"
#include "shardstep/server/node.h"
#include "shardstep/server/rpc/follow_stream.h"
#include "shardstep/server/rpc/server_state.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/v1/peer.grpc.pb.h"
#include "shardstep/wire/fleet_file.h"

namespace shardstep {

// Thread-safe. Only Tick (on the disk) and Stop block.
class PeerClient {
 public:
  // `identity` and `clock` must outlive it, as must what the other methods are given until Stop.
  PeerClient(const ServerIdentity* identity, const Clock* clock)
      : identity_(*identity), clock_(*clock) {}
  // Stop() was called, or nothing was opened.
  ~PeerClient() = default;

  // Comes first. The own server's shard hosts are those of `node`.
  void Begin(const FleetFile& fleet, Node* node);
  // See Node::OpenPeer.
  void Open(int server, const std::string& optimizer, std::weak_ptr<Coordinator> coordinator);
  // Connects again where it is time, forgets the streams of coordinators that are gone. To be
  // called a few times a second.
  void Tick();
  // Ends all streams, waits until gRPC has done with them, and opens none any more.
  void Stop();

 private:
  struct Link {
    int server = 0;
    std::string optimizer;
    std::weak_ptr<Coordinator> coordinator;
    // Null: broken, waits for next_attempt; or the own server.
    std::shared_ptr<FollowStream> stream;
    absl::Duration delay;     // before the attempt after the next failure
    absl::Time next_attempt;  // never, while it is connected or tries to
    std::string last_error;
  };
  struct Connection {
    std::string address;
    std::shared_ptr<v1::Peer::Stub> stub;
  };

  void Connect(const std::shared_ptr<Link>& link);
  void ConnectLocal(const std::shared_ptr<Link>& link,
                    const std::shared_ptr<Coordinator>& coordinator);
  void OnReplies(const std::shared_ptr<Link>& link, std::vector<v1::PeerReply> replies);
  void OnEnd(const std::shared_ptr<Link>& link, const absl::Status& status);
  // Whether this process has a newer coordinator of the same optimizer: one that was forgotten for
  // lack of use is about to go.
  bool ReplacedHere(const Link& link);
  // A stub for `server`'s present address.
  std::shared_ptr<v1::Peer::Stub> StubFor(int server) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReadAddresses();

  const ServerIdentity& identity_;
  const Clock& clock_;

  Mutex mutex_;
  CondVar ended_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::shared_ptr<Link>> links_ ABSL_GUARDED_BY(mutex_);  // what is in them, too
  // Their own callbacks must not destroy them: Tick and Stop do.
  std::vector<std::shared_ptr<FollowStream>> ended_streams_ ABSL_GUARDED_BY(mutex_);
  std::map<int, Connection> connections_ ABSL_GUARDED_BY(mutex_);
  FleetFile fleet_ ABSL_GUARDED_BY(mutex_);
  Node* node_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_PEER_CLIENT_H_
