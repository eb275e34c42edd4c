#include "shardstep/server/rpc/push_stream.h"

#include <iterator>
#include <utility>
#include <vector>

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
  absl::StatusOr<ReceivedFrame> received = ReceivedFrame::FromBuffer(message);
  message.Clear();
  absl::StatusOr<std::vector<FrameView>> frames =
      received.ok() ? received->DecodeAll()
                    : absl::StatusOr<std::vector<FrameView>>(received.status());
  if (frames.ok()) {
    received_ = *std::move(received);
    frames_.assign(std::make_move_iterator(frames->begin()),
                   std::make_move_iterator(frames->end()));
  } else {
    Close(frames.status());
  }
  Continue();
}

void PushStream::Continue() {
  while (!frames_.empty()) {
    const FrameView frame = std::move(frames_.front());
    frames_.pop_front();
    if (!OnFrame(frame)) return;
  }
  received_.reset();
  ReadNext();
}

bool PushStream::OnFrame(const FrameView& frame) {
  const v1::FrameHeader& header = frame.header;
  switch (header.kind_case()) {
    case v1::FrameHeader::kBegin:
      return OnBegin(header.begin());
    case v1::FrameHeader::kEnd:
      return OnEnd(header.end());
    case v1::FrameHeader::kSlices:
      OnSlices(frame);
      return true;
    case v1::FrameHeader::kCancel:
      OnCancelFrame();
      return true;
    default:
      Break(absl::InvalidArgumentError(
          absl::StrCat("frame of kind ", header.kind_case(),
                       " in a stream of gradients, expected begin, slices, end or cancel")));
      return true;
  }
}

bool PushStream::OnBegin(const v1::Begin& begin) {
  if (phase_ == Phase::kOpen) {
    Break(absl::InvalidArgumentError(absl::StrCat("push ", begin.header().sequence(),
                                                  " begins before push ", sequence_, " ended")));
    return true;
  }
  session_ = begin.header().session();
  sequence_ = begin.header().sequence();
  absl::StatusOr<std::shared_ptr<ShardHost>> host = FindHost(*state_, begin.header());
  if (!host.ok()) {
    Fail(host.status());
    return true;
  }
  host_ = *std::move(host);
  host_->BeginPush(begin, [self = shared_from_this()](absl::StatusOr<std::shared_ptr<Push>> push) {
    if (push.ok()) {
      self->push_ = *std::move(push);
      self->phase_ = Phase::kOpen;
    } else {
      self->Fail(push.status());
    }
    self->Continue();
  });
  return false;
}

void PushStream::OnSlices(const FrameView& frame) {
  if (phase_ == Phase::kNoPush) {
    return Break(absl::InvalidArgumentError("slices outside a push, expected begin"));
  }
  if (phase_ == Phase::kFailed || push_->repeat) return;
  if (const absl::Status applied = push_->assembly.Apply(frame); !applied.ok()) Fail(applied);
}

bool PushStream::OnEnd(const v1::End& end) {
  switch (std::exchange(phase_, Phase::kNoPush)) {
    case Phase::kNoPush:
      Break(absl::InvalidArgumentError("end outside a push, expected begin"));
      return true;
    case Phase::kFailed:
      return true;
    case Phase::kOpen:
      host_->EndPush(std::move(push_), end, [self = shared_from_this()](absl::Status status) {
        self->Acknowledge(status);
        self->Continue();
      });
      return false;
  }
  return true;
}

void PushStream::Break(const absl::Status& status) {
  frames_.clear();
  Close(status);
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
