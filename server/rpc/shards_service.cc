#include "shardstep/server/rpc/shards_service.h"

#include <memory>
#include <string>

#include "shardstep/server/node.h"
#include "shardstep/server/rpc/greeting.h"
#include "shardstep/server/rpc/push_stream.h"
#include "shardstep/server/rpc/read_stream.h"
#include "shardstep/server/rpc/unary_call.h"
#include "shardstep/server/rpc/version.h"
#include "shardstep/server/rpc/write_call.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {

grpc::ServerUnaryReactor* ShardsService::Hello(Context* context, const v1::HelloRequest* request,
                                               v1::HelloReply* reply) {
  auto call = UnaryCall<v1::HelloReply>::Make(reply);
  const absl::Status deadline = CheckDeadline("Hello", *context);
  call->Answer(deadline.ok() ? Greet(*request) : deadline);
  return call.get();
}

absl::StatusOr<v1::HelloReply> ShardsService::Greet(const v1::HelloRequest& request) const {
  const ServerIdentity& identity = state_->identity();
  if (request.server_rank() != -1) {
    SHARDSTEP_RETURN_IF_ERROR(CheckServerRank(request.server_rank(), identity.server_rank));
  }
  v1::HelloReply reply;
  reply.set_server_rank(identity.server_rank);
  reply.set_incarnation(identity.incarnation);
  reply.set_numeric_fingerprint(identity.numeric_fingerprint);
  reply.set_version(kVersion);
  if (const auto fleet = state_->fleet(); fleet != nullptr) {
    if (!request.fleet_hash().empty()) {
      SHARDSTEP_RETURN_IF_ERROR(
          CheckFleet(*fleet, request.fleet_hash(), request.fleet_summary(), identity.server_rank));
    }
    reply.set_fleet_hash(fleet->Hash());
    reply.set_fleet_name(fleet->name);
    reply.set_durability(fleet->durability);
    reply.set_checkpoints(fleet->checkpoints);
    for (const std::string& address : fleet->servers) reply.add_addresses(address);
  }
  if (const auto node = state_->Serving(); node.ok()) {
    reply.set_serving(true);
    reply.set_shard_bytes((*node)->shard_memory().used());
    reply.set_push_bytes((*node)->push_memory().used());
    reply.set_snapshot_bytes((*node)->snapshot_memory().used());
  }
  return reply;
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* ShardsService::PushGradients(
    Context*) {
  auto stream = std::make_shared<PushStream>(state_);
  state_->streams().Add(stream);
  stream->Start();
  return stream.get();
}

// It owns itself.
grpc::ServerReadReactor<grpc::ByteBuffer>* ShardsService::WriteState(Context* context,
                                                                     grpc::ByteBuffer* response) {
  return new WriteCall(state_, context, response);
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* ShardsService::ReadState(
    Context* context) {
  auto stream = std::make_shared<ReadStream>(state_);
  state_->streams().Add(stream);
  stream->Start(*context);
  return stream.get();
}

}  // namespace shardstep
