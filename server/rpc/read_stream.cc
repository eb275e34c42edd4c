#include "shardstep/server/rpc/read_stream.h"

#include <utility>

#include "shardstep/server/node.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/byte_buffer.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/status.h"

namespace shardstep {

void ReadStream::Start(const grpc::CallbackServerContext& context) {
  const absl::Status status = CheckDeadline("ReadState", context);
  if (!status.ok()) return FinishWith(status);
  // By itself: gRPC starts no write for a batch of it and a message with a buffer hint, and does
  // not complete that before it is written.
  StartSendInitialMetadata();
  AwaitRequest();
}

void ReadStream::Close(const absl::Status& status) {
  {
    MutexLock lock(&mutex_);
    if (!closing_.has_value()) closing_ = status;
    if (!idle_) return;
    idle_ = false;
    finished_ = true;
  }
  Finish(ToGrpcStatus(status));
}

// A read starts under the lock, so that none starts after the end. gRPC runs no callback inside of
// it.
void ReadStream::AwaitRequest() {
  absl::Status closing;
  {
    MutexLock lock(&mutex_);
    if (!closing_.has_value()) {
      idle_ = true;
      return StartRead(&incoming_);
    }
    closing = *closing_;
  }
  FinishWith(closing);
}

void ReadStream::OnReadDone(bool ok) {
  {
    MutexLock lock(&mutex_);
    if (finished_) return;
    idle_ = false;
  }
  if (!ok) return FinishWith(absl::OkStatus());
  const absl::Status status = Open();
  if (!status.ok()) FinishWith(status);
}

absl::Status ReadStream::Open() {
  SHARDSTEP_RETURN_IF_ERROR(ParseFromBuffer(incoming_, &request_));
  incoming_.Clear();
  source_ = std::make_shared<Source>();
  SHARDSTEP_ASSIGN_OR_RETURN(source_->node, state_->Serving());
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

absl::Status ReadStream::OnOpened(absl::StatusOr<std::shared_ptr<const HeldVersion>> held) {
  SHARDSTEP_ASSIGN_OR_RETURN(source_->held, std::move(held));
  SHARDSTEP_ASSIGN_OR_RETURN(
      plan_, ReadPlan::Make(source_->held, request_.selector(), request_.skip_bytes()));
  request_ = v1::ReadStateRequest();
  return absl::OkStatus();
}

void ReadStream::WriteNext() {
  const ReadPlan::Frame frame = plan_->Next();
  outgoing_ =
      MakeFrameBuffer(frame.prefix, frame.payload, [source = source_, rounded = frame.rounded] {});
  grpc::WriteOptions options;
  if (!plan_->done() && outgoing_.Length() <= kSmallMessageBytes) options.set_buffer_hint();
  StartWrite(&outgoing_, options);
}

void ReadStream::OnWriteDone(bool ok) {
  if (!ok) return FinishWith(absl::CancelledError("the reader has gone"));
  if (!plan_->done()) return WriteNext();
  outgoing_.Clear();
  plan_.reset();
  source_.reset();
  AwaitRequest();
}

void ReadStream::FinishWith(const absl::Status& status) {
  {
    MutexLock lock(&mutex_);
    if (std::exchange(finished_, true)) return;
    idle_ = false;
  }
  Finish(ToGrpcStatus(status));
}

}  // namespace shardstep
