// PeerService: the server's end of proto/shardstep/v1/peer.proto: a coordinator's messages, handed
// to the shard host of its optimizer.
#ifndef SHARDSTEP_SERVER_RPC_PEER_SERVICE_H_
#define SHARDSTEP_SERVER_RPC_PEER_SERVICE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "shardstep/server/rpc/open_streams.h"
#include "shardstep/server/rpc/server_state.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/v1/peer.grpc.pb.h"

namespace shardstep {

// Thread-safe; no handler blocks.
class PeerService final : public v1::Peer::CallbackService {
 public:
  // `state` must outlive it.
  explicit PeerService(ServerState* state) : state_(state) {}

  grpc::ServerBidiReactor<v1::PeerMessage, v1::PeerReply>* Follow(
      grpc::CallbackServerContext* context) override;

 private:
  class FollowerStream;
  struct Followed {
    uint64_t coordinator_incarnation = 0;
    std::weak_ptr<OpenStream> stream;
  };

  // `stream` is from now on the one by which `optimizer` is told what to do. A stream of an older
  // coordinator, which would not notice that nobody listens any more, ends with FENCED.
  void Replace(const std::string& optimizer, Followed followed);

  ServerState* const state_;

  Mutex mutex_;
  std::map<std::string, Followed> followed_ ABSL_GUARDED_BY(mutex_);  // by optimizer
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_PEER_SERVICE_H_
