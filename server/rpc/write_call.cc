#include "shardstep/server/rpc/write_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/server/node.h"
#include "shardstep/wire/byte_buffer.h"
#include "shardstep/wire/status.h"

namespace shardstep {

WriteCall::WriteCall(ServerState* state, grpc::CallbackServerContext* context,
                     grpc::ByteBuffer* response)
    : state_(state), response_(response) {
  const absl::Status deadline = CheckDeadline("WriteState", *context);
  if (deadline.ok()) {
    ReadNext();
  } else {
    Answer(deadline);
  }
}

void WriteCall::OnReadDone(bool ok) {
  if (!ok) return Answer(absl::InvalidArgumentError("the write broke off before its end"));
  const absl::StatusOr<ReceivedFrame> received = ReceivedFrame::FromBuffer(incoming_);
  incoming_.Clear();
  if (!received.ok()) return Answer(received.status());
  const absl::StatusOr<FrameView> frame = received->Decode();
  if (!frame.ok()) return Answer(frame.status());
  OnFrame(*frame);
}

void WriteCall::OnFrame(const FrameView& frame) {
  const v1::FrameHeader& header = frame.header;
  if (header.has_write_begin() != (write_ == nullptr)) {
    return Answer(absl::InvalidArgumentError(
        absl::StrCat("frame of kind ", header.kind_case(),
                     write_ == nullptr ? ", a write starts with its begin"
                                       : " in a write that has begun, expected slices or end")));
  }
  switch (header.kind_case()) {
    case v1::FrameHeader::kWriteBegin:
      return OnWriteBegin(header.write_begin());
    case v1::FrameHeader::kSlices: {
      const absl::Status applied = write_->assembly->Apply(frame);
      return applied.ok() ? ReadNext() : Answer(applied);
    }
    case v1::FrameHeader::kScalars: {
      const absl::Status applied = write_->assembly->ApplyScalars(frame);
      return applied.ok() ? ReadNext() : Answer(applied);
    }
    case v1::FrameHeader::kEnd:
      return OnEnd(header.end());
    default:
      return Answer(absl::InvalidArgumentError(
          absl::StrCat("frame of kind ", header.kind_case(), " in a write of values")));
  }
}

void WriteCall::OnWriteBegin(const v1::WriteBegin& begin) {
  const auto node = state_->Serving();
  if (!node.ok()) return Answer(node.status());
  auto host = (*node)->FindHost(begin.header().optimizer(), /*create=*/false);
  if (!host.ok()) return Answer(host.status());
  host_ = *host;
  // `host`, not host_: this call may be over, and gone, before BeginWrite returns.
  (*host)->BeginWrite(begin, [this](absl::StatusOr<std::shared_ptr<StagedWrite>> write) {
    if (!write.ok()) return Answer(write.status());
    // This session's write ended before: there is nothing to read.
    if (*write == nullptr) return Answer(v1::WriteStateReply());
    write_ = *std::move(write);
    ReadNext();
  });
}

void WriteCall::OnEnd(const v1::End& end) {
  const std::shared_ptr<ShardHost> host = host_;
  host->EndWrite(write_, end, [this](absl::StatusOr<v1::WriteStateReply> reply) { Answer(reply); });
}

void WriteCall::Answer(const absl::StatusOr<v1::WriteStateReply>& reply) {
  if (reply.ok()) *response_ = SerializeToBuffer(*reply);
  Finish(ToGrpcStatus(reply.status()));
}

}  // namespace shardstep
