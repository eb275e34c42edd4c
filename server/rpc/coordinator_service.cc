#include "shardstep/server/rpc/coordinator_service.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "shardstep/server/caller.h"
#include "shardstep/server/coordinator.h"
#include "shardstep/server/node.h"
#include "shardstep/server/reply.h"
#include "shardstep/server/rpc/step_stream.h"
#include "shardstep/server/rpc/unary_call.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

enum class IfMissing { kFail, kCreate };

absl::StatusOr<std::shared_ptr<Node>> Admit(const ServerState& state, absl::string_view name,
                                            const grpc::CallbackServerContext& context) {
  SHARDSTEP_RETURN_IF_ERROR(CheckDeadline(name, context));
  return state.Serving();
}

absl::StatusOr<std::shared_ptr<Coordinator>> FindCoordinator(
    const ServerState& state, absl::string_view name, const grpc::CallbackServerContext& context,
    const v1::CallHeader& header, IfMissing if_missing) {
  SHARDSTEP_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, Admit(state, name, context));
  return node->FindCoordinator(header.optimizer(), if_missing == IfMissing::kCreate);
}

template <typename Response>
Reply<Response> ReplyTo(std::shared_ptr<UnaryCall<Response>> call) {
  return [call](absl::StatusOr<Response> answer) { call->Answer(std::move(answer)); };
}

template <typename Response>
Caller CallerOf(std::shared_ptr<UnaryCall<Response>> call,
                const grpc::CallbackServerContext& context, const Clock& clock) {
  const absl::Duration remaining = absl::FromChrono(context.deadline()) - absl::Now();
  Caller caller;
  caller.answer_by = AnswerBy(clock.Now(), remaining);
  caller.gone = [call] { return call->gone(); };
  return caller;
}

// A call that the coordinator may let wait.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* Handle(ServerState* state, absl::string_view name,
                                 grpc::CallbackServerContext* context, const Request* request,
                                 Response* response, IfMissing if_missing,
                                 void (Coordinator::*method)(Request, Caller, Reply<Response>)) {
  auto call = UnaryCall<Response>::Make(response);
  auto coordinator = FindCoordinator(*state, name, *context, request->header(), if_missing);
  if (coordinator.ok()) {
    (**coordinator.*method)(*request, CallerOf(call, *context, state->clock()), ReplyTo(call));
  } else {
    call->Answer(coordinator.status());
  }
  return call.get();
}

// A call that is answered at once.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* Handle(ServerState* state, absl::string_view name,
                                 grpc::CallbackServerContext* context, const Request* request,
                                 Response* response,
                                 void (Coordinator::*method)(Request, Reply<Response>)) {
  auto call = UnaryCall<Response>::Make(response);
  auto coordinator = FindCoordinator(*state, name, *context, request->header(), IfMissing::kFail);
  if (coordinator.ok()) {
    (**coordinator.*method)(*request, ReplyTo(call));
  } else {
    call->Answer(coordinator.status());
  }
  return call.get();
}

// A call that the node answers, whether or not there is the optimizer.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* Handle(ServerState* state, absl::string_view name,
                                 grpc::CallbackServerContext* context, const Request* request,
                                 Response* response,
                                 void (Node::*method)(const Request&, Reply<Response>)) {
  auto call = UnaryCall<Response>::Make(response);
  const auto node = Admit(*state, name, *context);
  if (node.ok()) {
    (**node.*method)(*request, ReplyTo(call));
  } else {
    call->Answer(node.status());
  }
  return call.get();
}

}  // namespace

grpc::ServerUnaryReactor* CoordinatorService::OpenSession(Context* context,
                                                          const v1::OpenSessionRequest* request,
                                                          v1::OpenSessionReply* reply) {
  return Handle(state_, "OpenSession", context, request, reply, IfMissing::kCreate,
                &Coordinator::OpenSession);
}

grpc::ServerUnaryReactor* CoordinatorService::RenewSession(Context* context,
                                                           const v1::RenewSessionRequest* request,
                                                           v1::RenewSessionReply* reply) {
  return Handle(state_, "RenewSession", context, request, reply, &Coordinator::RenewSession);
}

grpc::ServerUnaryReactor* CoordinatorService::CloseSession(Context* context,
                                                           const v1::CloseSessionRequest* request,
                                                           v1::CloseSessionReply* reply) {
  return Handle(state_, "CloseSession", context, request, reply, &Coordinator::CloseSession);
}

grpc::ServerUnaryReactor* CoordinatorService::Propose(Context* context,
                                                      const v1::ProposeRequest* request,
                                                      v1::ProposeReply* reply) {
  const bool makes = request->has_create() || request->has_restore();
  const IfMissing if_missing = makes ? IfMissing::kCreate : IfMissing::kFail;
  return Handle(state_, "Propose", context, request, reply, if_missing, &Coordinator::Propose);
}

grpc::ServerUnaryReactor* CoordinatorService::Describe(Context* context,
                                                       const v1::DescribeRequest* request,
                                                       v1::DescribeReply* reply) {
  return Handle(state_, "Describe", context, request, reply, &Coordinator::Describe);
}

grpc::ServerUnaryReactor* CoordinatorService::ListOptimizers(Context* context,
                                                             const v1::ListOptimizersRequest*,
                                                             v1::ListOptimizersReply* reply) {
  auto call = UnaryCall<v1::ListOptimizersReply>::Make(reply);
  const auto node = Admit(*state_, "ListOptimizers", *context);
  if (node.ok()) {
    (*node)->ListOptimizers(ReplyTo(call));
  } else {
    call->Answer(node.status());
  }
  return call.get();
}

grpc::ServerUnaryReactor* CoordinatorService::ListSessions(Context* context,
                                                           const v1::ListSessionsRequest* request,
                                                           v1::ListSessionsReply* reply) {
  auto call = UnaryCall<v1::ListSessionsReply>::Make(reply);
  const auto coordinator =
      FindCoordinator(*state_, "ListSessions", *context, request->header(), IfMissing::kFail);
  if (coordinator.ok()) {
    (*coordinator)->ListSessions(ReplyTo(call));
  } else {
    call->Answer(coordinator.status());
  }
  return call.get();
}

grpc::ServerUnaryReactor* CoordinatorService::Step(Context* context, const v1::StepRequest* request,
                                                   v1::StepReply* reply) {
  return Handle(state_, "Step", context, request, reply, IfMissing::kFail, &Coordinator::Step);
}

grpc::ServerBidiReactor<v1::StepCalls, v1::StepAnswers>* CoordinatorService::Steps(Context*) {
  auto stream = std::make_shared<StepStream>(state_);
  state_->streams().Add(stream);
  stream->Start();
  return stream.get();
}

grpc::ServerUnaryReactor* CoordinatorService::StepStatus(Context* context,
                                                         const v1::StepStatusRequest* request,
                                                         v1::StepStatusReply* reply) {
  return Handle(state_, "StepStatus", context, request, reply, &Coordinator::StepStatus);
}

grpc::ServerUnaryReactor* CoordinatorService::OpenSnapshot(Context* context,
                                                           const v1::OpenSnapshotRequest* request,
                                                           v1::OpenSnapshotReply* reply) {
  return Handle(state_, "OpenSnapshot", context, request, reply, IfMissing::kFail,
                &Coordinator::OpenSnapshot);
}

grpc::ServerUnaryReactor* CoordinatorService::RenewSnapshot(Context* context,
                                                            const v1::RenewSnapshotRequest* request,
                                                            v1::RenewSnapshotReply* reply) {
  return Handle(state_, "RenewSnapshot", context, request, reply, &Coordinator::RenewSnapshot);
}

grpc::ServerUnaryReactor* CoordinatorService::CloseSnapshot(Context* context,
                                                            const v1::CloseSnapshotRequest* request,
                                                            v1::CloseSnapshotReply* reply) {
  return Handle(state_, "CloseSnapshot", context, request, reply, &Coordinator::CloseSnapshot);
}

grpc::ServerUnaryReactor* CoordinatorService::Checkpoint(Context* context,
                                                         const v1::CheckpointRequest* request,
                                                         v1::CheckpointReply* reply) {
  return Handle(state_, "Checkpoint", context, request, reply, IfMissing::kFail,
                &Coordinator::Checkpoint);
}

grpc::ServerUnaryReactor* CoordinatorService::ListCheckpoints(
    Context* context, const v1::ListCheckpointsRequest* request, v1::ListCheckpointsReply* reply) {
  return Handle(state_, "ListCheckpoints", context, request, reply, &Node::ListCheckpoints);
}

grpc::ServerUnaryReactor* CoordinatorService::VerifyCheckpoint(
    Context* context, const v1::VerifyCheckpointRequest* request,
    v1::VerifyCheckpointReply* reply) {
  return Handle(state_, "VerifyCheckpoint", context, request, reply, &Node::VerifyCheckpoint);
}

}  // namespace shardstep
