// WriteCall: one WriteState call: WriteBegin, slices, End, then the reply.
#ifndef SHARDSTEP_SERVER_RPC_WRITE_CALL_H_
#define SHARDSTEP_SERVER_RPC_WRITE_CALL_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/server/rpc/server_state.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/v1/frame.pb.h"
#include "shardstep/v1/shards.pb.h"
#include "shardstep/wire/frame.h"

namespace shardstep {

// Owns itself until gRPC has done with it. A single chain of reads and continuations, so it needs
// no lock: whoever is at the end of the chain either reads on or finishes. A cancelled call ends
// its chain by a read that fails.
class WriteCall final : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  // `state` must outlive it; `response` is the one that gRPC gave to the handler.
  WriteCall(ServerState* state, grpc::CallbackServerContext* context, grpc::ByteBuffer* response);

 private:
  void OnReadDone(bool ok) override;
  void OnDone() override { delete this; }

  // Each of these ends in ReadNext or Answer, perhaps later.
  void OnFrame(const FrameView& frame);
  void OnWriteBegin(const v1::WriteBegin& begin);
  void OnEnd(const v1::End& end);

  void ReadNext() { StartRead(&incoming_); }
  void Answer(const absl::StatusOr<v1::WriteStateReply>& reply);

  ServerState* const state_;
  grpc::ByteBuffer* const response_;
  grpc::ByteBuffer incoming_;
  std::shared_ptr<ShardHost> host_;
  std::shared_ptr<StagedWrite> write_;  // null before WriteBegin
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_WRITE_CALL_H_
