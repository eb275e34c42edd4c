#include "shardstep/server/rpc/read_call.h"

#include <utility>

#include "shardstep/server/node.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/byte_buffer.h"
#include "shardstep/wire/status.h"

namespace shardstep {

ReadCall::ReadCall(ServerState* state, grpc::CallbackServerContext* context,
                   const grpc::ByteBuffer& request) {
  const absl::Status status = Open(state, context, request);
  if (!status.ok()) FinishWith(status);
}

absl::Status ReadCall::Open(ServerState* state, grpc::CallbackServerContext* context,
                            const grpc::ByteBuffer& request) {
  SHARDSTEP_RETURN_IF_ERROR(CheckDeadline("ReadState", *context));
  SHARDSTEP_RETURN_IF_ERROR(ParseFromBuffer(request, &request_));
  SHARDSTEP_ASSIGN_OR_RETURN(source_->node, state->Serving());
  SHARDSTEP_ASSIGN_OR_RETURN(
      const std::shared_ptr<ShardHost> host,
      source_->node->FindHost(request_.header().optimizer(), /*create=*/false));
  host->OpenRead(request_.header(), request_.snapshot(),
                 [this](absl::StatusOr<std::shared_ptr<const HeldVersion>> held) {
                   const absl::Status status = OnOpened(std::move(held));
                   if (!status.ok()) return FinishWith(status);
                   WriteNext();
                 });
  return absl::OkStatus();
}

absl::Status ReadCall::OnOpened(absl::StatusOr<std::shared_ptr<const HeldVersion>> held) {
  SHARDSTEP_ASSIGN_OR_RETURN(source_->held, std::move(held));
  SHARDSTEP_ASSIGN_OR_RETURN(
      plan_, ReadPlan::Make(source_->held, request_.selector(), request_.skip_bytes()));
  return absl::OkStatus();
}

void ReadCall::WriteNext() {
  const ReadPlan::Frame frame = plan_->Next();
  outgoing_ =
      MakeFrameBuffer(frame.prefix, frame.payload, [source = source_, rounded = frame.rounded] {});
  // Without a buffer hint, although another message follows: gRPC starts no write for a batch of
  // initial metadata and a message that has one, and does not complete it before that is written.
  if (plan_->done()) return StartWriteAndFinish(&outgoing_, {}, grpc::Status::OK);
  StartWrite(&outgoing_);
}

void ReadCall::OnWriteDone(bool ok) {
  if (!ok) return FinishWith(absl::CancelledError("the reader has gone"));
  WriteNext();
}

void ReadCall::FinishWith(const absl::Status& status) { Finish(ToGrpcStatus(status)); }

}  // namespace shardstep
