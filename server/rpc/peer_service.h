// PeerService: the server's end of proto/shardstep/v1/peer.proto: a coordinator's messages, handed
// to the shard host of its optimizer.
#ifndef SHARDSTEP_SERVER_RPC_PEER_SERVICE_H_
#define SHARDSTEP_SERVER_RPC_PEER_SERVICE_H_

#include "shardstep/server/rpc/server_state.h"
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
  ServerState* const state_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_PEER_SERVICE_H_
