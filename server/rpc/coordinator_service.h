// CoordinatorService: the calls of proto/shardstep/v1/coordinator.proto, each handed to the
// coordinator of the optimizer that its header names. Life of a call: server.h.
#ifndef SHARDSTEP_SERVER_RPC_COORDINATOR_SERVICE_H_
#define SHARDSTEP_SERVER_RPC_COORDINATOR_SERVICE_H_

#include "shardstep/server/rpc/server_state.h"
#include "shardstep/v1/coordinator.grpc.pb.h"

namespace shardstep {

// Thread-safe; no handler blocks.
class CoordinatorService final : public v1::Coordinator::CallbackService {
 public:
  // `state` must outlive it.
  explicit CoordinatorService(ServerState* state) : state_(state) {}

  using Context = grpc::CallbackServerContext;
  using Reactor = grpc::ServerUnaryReactor;

  Reactor* OpenSession(Context* context, const v1::OpenSessionRequest* request,
                       v1::OpenSessionReply* reply) override;
  Reactor* RenewSession(Context* context, const v1::RenewSessionRequest* request,
                        v1::RenewSessionReply* reply) override;
  Reactor* CloseSession(Context* context, const v1::CloseSessionRequest* request,
                        v1::CloseSessionReply* reply) override;
  Reactor* Propose(Context* context, const v1::ProposeRequest* request,
                   v1::ProposeReply* reply) override;
  Reactor* Describe(Context* context, const v1::DescribeRequest* request,
                    v1::DescribeReply* reply) override;
  Reactor* ListOptimizers(Context* context, const v1::ListOptimizersRequest* request,
                          v1::ListOptimizersReply* reply) override;
  Reactor* ListSessions(Context* context, const v1::ListSessionsRequest* request,
                        v1::ListSessionsReply* reply) override;
  Reactor* Step(Context* context, const v1::StepRequest* request, v1::StepReply* reply) override;
  grpc::ServerBidiReactor<v1::StepCalls, v1::StepAnswers>* Steps(Context* context) override;
  Reactor* StepStatus(Context* context, const v1::StepStatusRequest* request,
                      v1::StepStatusReply* reply) override;
  Reactor* OpenSnapshot(Context* context, const v1::OpenSnapshotRequest* request,
                        v1::OpenSnapshotReply* reply) override;
  Reactor* RenewSnapshot(Context* context, const v1::RenewSnapshotRequest* request,
                         v1::RenewSnapshotReply* reply) override;
  Reactor* CloseSnapshot(Context* context, const v1::CloseSnapshotRequest* request,
                         v1::CloseSnapshotReply* reply) override;
  Reactor* Checkpoint(Context* context, const v1::CheckpointRequest* request,
                      v1::CheckpointReply* reply) override;
  Reactor* ListCheckpoints(Context* context, const v1::ListCheckpointsRequest* request,
                           v1::ListCheckpointsReply* reply) override;
  Reactor* VerifyCheckpoint(Context* context, const v1::VerifyCheckpointRequest* request,
                            v1::VerifyCheckpointReply* reply) override;

 private:
  ServerState* const state_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RPC_COORDINATOR_SERVICE_H_
