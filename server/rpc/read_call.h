// ReadCall: one ReadState call: the frames of a ReadPlan, one write at a time.
#ifndef SHARDSTEP_SERVER_RPC_READ_CALL_H_
#define SHARDSTEP_SERVER_RPC_READ_CALL_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/server/held_version.h"
#include "shardstep/server/rpc/read_plan.h"
#include "shardstep/server/rpc/server_state.h"
#include "shardstep/v1/shards.pb.h"

namespace shardstep {

// Owns itself until gRPC has done with it. A single chain of continuations and writes, so it needs
// no lock; a cancelled call ends its chain by a write that fails, or by its last. What gRPC has not
// sent yet lies in the held version's memory or the frame's own, which outlive call and server
// until then.
class ReadCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  // `state` must outlive it.
  ReadCall(ServerState* state, grpc::CallbackServerContext* context,
           const grpc::ByteBuffer& request);

 private:
  // What frames on their way refer to. The node has the budget that the version's memory is counted
  // in.
  struct Source {
    std::shared_ptr<Node> node;
    std::shared_ptr<const HeldVersion> held;
  };

  absl::Status Open(ServerState* state, grpc::CallbackServerContext* context,
                    const grpc::ByteBuffer& request);
  absl::Status OnOpened(absl::StatusOr<std::shared_ptr<const HeldVersion>> held);
  void WriteNext();
  void OnWriteDone(bool ok) override;
  void OnDone() override { delete this; }
  void FinishWith(const absl::Status& status);

  v1::ReadStateRequest request_;
  std::shared_ptr<Source> source_ = std::make_shared<Source>();
  std::optional<ReadPlan> plan_;
  grpc::ByteBuffer outgoing_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_READ_CALL_H_
