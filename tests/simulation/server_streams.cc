#include "shardstep/tests/simulation/server_streams.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "shardstep/server/rpc/read_plan.h"
#include "shardstep/server/shard_host.h"
#include "shardstep/v1/shards.pb.h"
#include "shardstep/wire/frame.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

class PushEnd : public std::enable_shared_from_this<PushEnd> {
 public:
  PushEnd(Node* node, std::weak_ptr<SimStream> stream) : node_(node), stream_(std::move(stream)) {}

  void OnFrame(const std::string& bytes) {
    const absl::string_view whole = bytes;
    const absl::StatusOr<FrameView> frame = DecodeFrame({whole});
    if (!frame.ok()) return Break(frame.status());
    const v1::FrameHeader& header = frame->header;
    if (header.has_begin()) return OnBegin(header.begin());
    if (header.has_end()) return OnEnd(header.end());
    if (push_ == nullptr || push_->repeat) return;
    const absl::Status applied = push_->assembly.Apply(*frame);
    if (!applied.ok()) Fail(applied);
  }

 private:
  void OnBegin(const v1::Begin& begin) {
    if (push_ != nullptr) return Break(absl::InvalidArgumentError("a push begins inside another"));
    session_ = begin.header().session();
    sequence_ = begin.header().sequence();
    failed_ = false;
    auto host = node_->FindHost(begin.header().optimizer(), /*create=*/false);
    if (!host.ok()) return Fail(host.status());
    host_ = *std::move(host);
    host_->BeginPush(begin, [self = shared_from_this()](auto push) {
      if (!push.ok()) return self->Fail(push.status());
      self->push_ = *std::move(push);
    });
  }

  void OnEnd(const v1::End& end) {
    if (std::exchange(failed_, false)) return;
    if (push_ == nullptr) return Break(absl::InvalidArgumentError("end outside a push"));
    host_->EndPush(
        std::exchange(push_, nullptr), end,
        [self = shared_from_this()](const absl::Status& status) { self->Acknowledge(status); });
  }

  void Fail(const absl::Status& status) {
    failed_ = true;
    push_.reset();
    Acknowledge(status);
  }

  void Acknowledge(const absl::Status& status) {
    v1::PushAck ack;
    ack.set_session(session_);
    ack.set_sequence(sequence_);
    *ack.mutable_status() = ToRichStatus(status);
    if (const auto stream = stream_.lock()) {
      stream->Send(SimStream::kCallee, ack.SerializeAsString());
    }
  }

  void Break(const absl::Status& status) {
    if (const auto stream = stream_.lock()) stream->Break(status);
  }

  Node* const node_;
  const std::weak_ptr<SimStream> stream_;
  std::shared_ptr<ShardHost> host_;
  std::shared_ptr<Push> push_;
  uint64_t session_ = 0;
  uint64_t sequence_ = 0;
  bool failed_ = false;
};

class WriteEnd : public std::enable_shared_from_this<WriteEnd> {
 public:
  WriteEnd(Node* node, std::weak_ptr<SimStream> stream) : node_(node), stream_(std::move(stream)) {}

  void OnFrame(const std::string& bytes) {
    const absl::string_view whole = bytes;
    const absl::StatusOr<FrameView> frame = DecodeFrame({whole});
    if (!frame.ok()) return Answer(frame.status());
    const v1::FrameHeader& header = frame->header;
    if (header.has_write_begin()) {
      auto host = node_->FindHost(header.write_begin().header().optimizer(), /*create=*/false);
      if (!host.ok()) return Answer(host.status());
      host_ = *std::move(host);
      return host_->BeginWrite(header.write_begin(), [self = shared_from_this()](auto write) {
        if (!write.ok()) return self->Answer(write.status());
        // This session's write ended before.
        if (*write == nullptr) return self->Answer(absl::OkStatus());
        self->write_ = *std::move(write);
      });
    }
    if (write_ == nullptr) return;
    if (header.has_end()) {
      return host_->EndWrite(
          std::exchange(write_, nullptr), header.end(),
          [self = shared_from_this()](const auto& reply) { self->Answer(reply.status()); });
    }
    const absl::Status applied = header.has_scalars() ? write_->assembly->ApplyScalars(*frame)
                                                      : write_->assembly->Apply(*frame);
    if (!applied.ok()) Answer(applied);
  }

 private:
  void Answer(const absl::Status& status) {
    write_.reset();
    if (const auto stream = stream_.lock()) {
      stream->Send(SimStream::kCallee, ToRichStatus(status).SerializeAsString());
    }
  }

  Node* const node_;
  const std::weak_ptr<SimStream> stream_;
  std::shared_ptr<ShardHost> host_;
  std::shared_ptr<StagedWrite> write_;
};

void SendHeld(const std::shared_ptr<SimStream>& stream, const v1::ReadStateRequest& request,
              const absl::StatusOr<std::shared_ptr<const HeldVersion>>& held) {
  if (!held.ok()) return stream->Break(held.status());
  auto plan = ReadPlan::Make(*held, request.selector(), request.skip_bytes());
  if (!plan.ok()) return stream->Break(plan.status());
  while (!plan->done()) {
    const ReadPlan::Frame frame = plan->Next();
    std::string bytes = frame.prefix.bytes;
    for (const absl::string_view piece : frame.payload) absl::StrAppend(&bytes, piece);
    stream->Send(SimStream::kCallee, std::move(bytes));
  }
}

}  // namespace

SimStream::End ServePushes(Node* node, const std::shared_ptr<SimStream>& stream) {
  auto end = std::make_shared<PushEnd>(node, stream);
  return {[end](const std::string& bytes) { end->OnFrame(bytes); }, nullptr};
}

SimStream::End ServeWrite(Node* node, const std::shared_ptr<SimStream>& stream) {
  auto end = std::make_shared<WriteEnd>(node, stream);
  return {[end](const std::string& bytes) { end->OnFrame(bytes); }, nullptr};
}

SimStream::End ServeRead(Node* node, const std::shared_ptr<SimStream>& stream) {
  return {[node, weak = std::weak_ptr<SimStream>(stream)](const std::string& bytes) {
            const auto stream = weak.lock();
            v1::ReadStateRequest request;
            if (stream == nullptr || !request.ParseFromString(bytes)) return;
            auto host = node->FindHost(request.header().optimizer(), /*create=*/false);
            if (!host.ok()) return stream->Break(host.status());
            (*host)->OpenRead(
                request.header(), request.snapshot(),
                [stream, request](const auto& held) { SendHeld(stream, request, held); });
          },
          nullptr};
}

}  // namespace shardstep
