#include "shardstep/server/rpc/push_stream.h"

#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/v1/shards.pb.h"
#include "shardstep/wire/byte_buffer.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

absl::StatusOr<std::shared_ptr<ShardHost>> FindHost(const ServerState& state,
                                                    const v1::CallHeader& header) {
  SHARDSTEP_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, state.Serving());
  return node->FindHost(header.optimizer(), /*create=*/false);
}

}  // namespace

void PushStream::OnMessage(grpc::ByteBuffer& message) {
  const absl::StatusOr<ReceivedFrame> received = ReceivedFrame::FromBuffer(message);
  message.Clear();
  const absl::StatusOr<FrameView> frame =
      received.ok() ? received->Decode() : absl::StatusOr<FrameView>(received.status());
  if (frame.ok()) return OnFrame(*frame);
  Close(frame.status());
  ReadNext();
}

void PushStream::OnFrame(const FrameView& frame) {
  const v1::FrameHeader& header = frame.header;
  switch (header.kind_case()) {
    case v1::FrameHeader::kBegin:
      return OnBegin(header.begin());
    case v1::FrameHeader::kEnd:
      return OnEnd(header.end());
    case v1::FrameHeader::kSlices:
      OnSlices(frame);
      break;
    case v1::FrameHeader::kCancel:
      OnCancelFrame();
      break;
    default:
      Close(absl::InvalidArgumentError(
          absl::StrCat("frame of kind ", header.kind_case(),
                       " in a stream of gradients, expected begin, slices, end or cancel")));
  }
  ReadNext();
}

void PushStream::OnBegin(const v1::Begin& begin) {
  if (phase_ == Phase::kOpen) {
    Close(absl::InvalidArgumentError(absl::StrCat("push ", begin.header().sequence(),
                                                  " begins before push ", sequence_, " ended")));
    return ReadNext();
  }
  session_ = begin.header().session();
  sequence_ = begin.header().sequence();
  absl::StatusOr<std::shared_ptr<ShardHost>> host = FindHost(*state_, begin.header());
  if (!host.ok()) {
    Fail(host.status());
    return ReadNext();
  }
  host_ = *std::move(host);
  host_->BeginPush(begin, [self = shared_from_this()](absl::StatusOr<std::shared_ptr<Push>> push) {
    if (push.ok()) {
      self->push_ = *std::move(push);
      self->phase_ = Phase::kOpen;
    } else {
      self->Fail(push.status());
    }
    self->ReadNext();
  });
}

void PushStream::OnSlices(const FrameView& frame) {
  if (phase_ == Phase::kNoPush) {
    return Close(absl::InvalidArgumentError("slices outside a push, expected begin"));
  }
  if (phase_ == Phase::kFailed || push_->repeat) return;
  if (const absl::Status applied = push_->assembly.Apply(frame); !applied.ok()) Fail(applied);
}

void PushStream::OnEnd(const v1::End& end) {
  switch (std::exchange(phase_, Phase::kNoPush)) {
    case Phase::kNoPush:
      Close(absl::InvalidArgumentError("end outside a push, expected begin"));
      return ReadNext();
    case Phase::kFailed:
      return ReadNext();
    case Phase::kOpen:
      host_->EndPush(std::move(push_), end, [self = shared_from_this()](absl::Status status) {
        self->Acknowledge(status);
        self->ReadNext();
      });
  }
}

void PushStream::OnCancelFrame() {
  phase_ = Phase::kNoPush;
  push_.reset();
}

void PushStream::Fail(const absl::Status& status) {
  phase_ = Phase::kFailed;
  push_.reset();
  Acknowledge(status);
}

void PushStream::Acknowledge(const absl::Status& status) {
  v1::PushAck ack;
  ack.set_session(session_);
  ack.set_sequence(sequence_);
  *ack.mutable_status() = ToRichStatus(status);
  Send(SerializeToBuffer(ack));
}

}  // namespace shardstep
