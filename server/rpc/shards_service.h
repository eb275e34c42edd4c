// ShardsService: the calls of proto/shardstep/v1/shards.proto. The streams of frames are raw: gRPC
// gives their bytes as they came, and wire/frame.h takes them apart without a copy.
#ifndef SHARDSTEP_SERVER_RPC_SHARDS_SERVICE_H_
#define SHARDSTEP_SERVER_RPC_SHARDS_SERVICE_H_

#include "absl/status/statusor.h"
#include "shardstep/server/rpc/server_state.h"
#include "shardstep/v1/shards.grpc.pb.h"
#include "shardstep/v1/shards.pb.h"

namespace shardstep {

using RawShardsService = v1::Shards::WithCallbackMethod_Hello<
    v1::Shards::WithRawCallbackMethod_PushGradients<v1::Shards::WithRawCallbackMethod_WriteState<
        v1::Shards::WithRawCallbackMethod_ReadState<v1::Shards::Service>>>>;

// Thread-safe; no handler blocks.
class ShardsService final : public RawShardsService {
 public:
  // `state` must outlive it.
  explicit ShardsService(ServerState* state) : state_(state) {}

  using Context = grpc::CallbackServerContext;

  grpc::ServerUnaryReactor* Hello(Context* context, const v1::HelloRequest* request,
                                  v1::HelloReply* reply) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* PushGradients(
      Context* context) override;
  grpc::ServerReadReactor<grpc::ByteBuffer>* WriteState(Context* context,
                                                        grpc::ByteBuffer* response) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* ReadState(Context* context) override;

 private:
  absl::StatusOr<v1::HelloReply> Greet(const v1::HelloRequest& request) const;

  ServerState* const state_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_SHARDS_SERVICE_H_
