#include "shardstep/client/push_lane.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/v1/shards.pb.h"
#include "shardstep/wire/byte_buffer.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

// How long a live stream may take to let go of memory before it is cancelled.
constexpr absl::Duration kReleasePatience = absl::Milliseconds(500);

grpc::ByteBuffer EncodeBare(const v1::FrameHeader& header) {
  return MakeFrameBuffer(EncodeFramePrefix(header, {}), {}, [] {});
}

}  // namespace

void PushLane::Push::Restart() {
  begun = false;
  next_frame = 0;
  digest = FrameDigest();
  end_sent = false;
  ack.reset();
}

PushLane::PushLane(Connection* connection, int server_rank,
                   std::shared_ptr<const OptimizerIndex> index, const RetryPolicy& policy)
    : connection_(connection),
      server_rank_(server_rank),
      policy_(policy),
      index_(std::move(index)) {}

PushLane::~PushLane() {
  CloseStream();
  Forget(UINT64_MAX);
}

void PushLane::Begin(v1::Begin begin) {
  EnsureOpen();
  MutexLock lock(&mutex_);
  const uint64_t sequence = begin.header().sequence();
  pushes_[sequence].begin = std::move(begin);
}

PushLane::Push* PushLane::FindOpen(uint64_t sequence) {
  const auto found = pushes_.find(sequence);
  return found == pushes_.end() || found->second.touched ? nullptr : &found->second;
}

void PushLane::Add(uint64_t sequence, std::vector<OutgoingSlice> slices) {
  {
    MutexLock lock(&mutex_);
    Push* const push = FindOpen(sequence);
    if (push == nullptr) return;
    for (OutgoingSlice& slice : slices) push->waiting.push_back(std::move(slice));
  }
  Pump();
}

void PushLane::End(uint64_t sequence, std::string touched, std::string rows) {
  {
    MutexLock lock(&mutex_);
    Push* const push = FindOpen(sequence);
    if (push == nullptr) return;
    push->touched = std::move(touched);
    push->rows = std::move(rows);
  }
  Pump();
}

void PushLane::LeaveOut(uint64_t sequence) {
  bool over = false;
  {
    MutexLock lock(&mutex_);
    const Push* const push = FindOpen(sequence);
    if (push == nullptr || push->begun || push->HasUnsent()) return;
    pushes_.erase(sequence);
    over = Over();
  }
  if (over) changed_.NotifyAll();
}

void PushLane::Abandon(uint64_t sequence) {
  std::vector<Push> dropped;
  {
    MutexLock lock(&mutex_);
    const auto found = pushes_.find(sequence);
    if (found == pushes_.end()) return;
    dropped.push_back(std::move(found->second));
    pushes_.erase(found);
  }
  // A stream that breaks off is how a server learns it; the pushes that it has not acknowledged go
  // out again.
  if (dropped.front().begun) CloseStream();
  Release(std::move(dropped));
}

void PushLane::Adopt(std::shared_ptr<const OptimizerIndex> index) {
  MutexLock lock(&mutex_);
  for (auto& [sequence, push] : pushes_) {
    push.begin.mutable_header()->set_plan_id(index->plan_id());
    if (push.end_sent && push.ack && !push.ack->ok()) push.Restart();
  }
  index_ = std::move(index);
}

absl::Status PushLane::AwaitAcks(uint64_t last, absl::Time deadline) {
  Retry retry(policy_, deadline);
  while (true) {
    EnsureOpen();
    Pump();
    const absl::Status status = AwaitOutcome(last, retry);
    if (status.ok()) return status;
    if (!retry.Again(status)) return retry.Explain(connection_->ServerName(server_rank_), status);
    RestartFailed(last);
  }
}

void PushLane::Repeat(uint64_t first, uint64_t last) {
  MutexLock lock(&mutex_);
  for (auto& [sequence, push] : pushes_) {
    if (sequence >= first && sequence <= last && push.end_sent) push.Restart();
  }
}

void PushLane::Forget(uint64_t first_live) {
  std::vector<Push> dropped;
  bool half_sent = false;
  {
    MutexLock lock(&mutex_);
    while (!pushes_.empty() && pushes_.begin()->first < first_live) {
      Push& push = pushes_.begin()->second;
      half_sent |= push.begun && !push.end_sent;
      dropped.push_back(std::move(push));
      pushes_.erase(pushes_.begin());
    }
    refused_ = absl::OkStatus();
  }
  if (half_sent) CloseStream();
  Release(std::move(dropped));
}

void PushLane::Release(std::vector<Push> pushes) {
  for (const Push& push : pushes) {
    if (push.borrowed->AwaitZero(kReleasePatience)) continue;
    CloseStream();
    push.borrowed->AwaitZero(absl::InfiniteDuration());
  }
}

void PushLane::EnsureOpen() {
  {
    MutexLock lock(&mutex_);
    if (stream_ != nullptr && !closed_) return;
  }
  CloseStream();
  {
    MutexLock lock(&mutex_);
    closed_.reset();
  }
  std::unique_ptr<ByteStream> stream = connection_->StartPush(server_rank_, this);
  MutexLock lock(&mutex_);
  stream_ = std::move(stream);
}

void PushLane::CloseStream() {
  std::unique_ptr<ByteStream> stream;
  {
    MutexLock lock(&mutex_);
    stream = std::move(stream_);
    while (senders_ > 0) unused_.Wait(&mutex_);
  }
  stream.reset();
  MutexLock lock(&mutex_);
  sending_ = false;
  for (auto& [sequence, push] : pushes_) {
    if (!push.ack || !push.ack->ok()) push.Restart();
  }
}

void PushLane::Pump() {
  ByteStream* stream = nullptr;
  std::optional<grpc::ByteBuffer> message;
  bool another_follows = false;
  bool over = false;
  {
    MutexLock lock(&mutex_);
    if (stream_ == nullptr || closed_ || sending_ || !refused_.ok()) return;
    Push* const push = NextPush();
    if (push == nullptr) return;
    message = NextMessage(push);
    sending_ = message.has_value();
    if (message) ++senders_;
    stream = stream_.get();
    // Only of the same push: if that is dropped half sent, the stream ends with it, and if its
    // bytes have changed, nobody waits for it.
    another_follows = push->HasUnsent();
    over = Over();
  }
  if (over) changed_.NotifyAll();
  if (!message) return;
  stream->Send(*std::move(message), another_follows);
  MutexLock lock(&mutex_);
  if (--senders_ == 0) unused_.NotifyAll();
}

PushLane::Push* PushLane::NextPush() {
  Push* first = nullptr;
  for (auto& [sequence, push] : pushes_) {
    if (push.begun && !push.end_sent) return push.HasUnsent() ? &push : nullptr;
    if (!push.begun && first == nullptr && push.HasUnsent()) first = &push;
  }
  return first;
}

std::optional<grpc::ByteBuffer> PushLane::NextMessage(Push* push) {
  v1::FrameHeader header;
  if (!push->begun) {
    push->begun = true;
    *header.mutable_begin() = push->begin;
    return EncodeBare(header);
  }
  if (push->next_frame == push->frames.size() && !push->waiting.empty()) {
    push->frames.push_back(TakeFrame(&push->waiting));
  }
  if (push->next_frame < push->frames.size()) {
    grpc::ByteBuffer frame = EncodeFrame(push);
    if (!refused_.ok()) return std::nullopt;
    return frame;
  }
  push->end_sent = true;
  v1::End& end = *header.mutable_end();
  end.set_frames(push->frames.size());
  end.set_digest(push->digest.value());
  end.set_touched(*push->touched);
  end.set_rows(push->rows);
  // From now on a Begin of this push is that of a repeat.
  push->begin.set_digest(push->digest.value());
  return EncodeBare(header);
}

grpc::ByteBuffer PushLane::EncodeFrame(Push* push) {
  OutgoingFrame& frame = push->frames[push->next_frame];
  const std::vector<absl::string_view> payload = PayloadOf(frame);
  const FramePrefix prefix = EncodeFramePrefix(HeaderOf(frame), payload);
  if (frame.sent && frame.crc32c != prefix.crc32c) {
    const int parameter = index_->shard(static_cast<int>(frame.slices[0].shard)).parameter;
    refused_ = absl::FailedPreconditionError(absl::StrCat(
        "push ", push->begin.header().sequence(), " of \"", index_->name(),
        "\": the gradient has changed since it was pushed, of parameter \"",
        index_->parameters()[parameter].name, "\" or one packed with it; call ZeroGrad"));
    return {};
  }
  frame.sent = true;
  frame.crc32c = prefix.crc32c;
  push->digest.Add(prefix.crc32c);
  ++push->next_frame;
  push->borrowed->Add();
  return MakeFrameBuffer(prefix, payload, [borrowed = push->borrowed] { borrowed->Remove(); });
}

std::optional<absl::Status> PushLane::Outcome(uint64_t last) const {
  if (!refused_.ok()) return refused_;
  bool all = true;
  for (const auto& [sequence, push] : pushes_) {
    if (sequence > last) break;
    // An error comes as soon as it is known, maybe before the end is sent.
    if (push.end_sent && push.ack && !push.ack->ok()) return *push.ack;
    all &= push.ack.has_value() && push.ack->ok();
  }
  if (all) return absl::OkStatus();
  if (!closed_) return std::nullopt;
  return closed_->ok() ? absl::UnavailableError("the server ended the stream") : *closed_;
}

bool PushLane::Over() const { return awaited_ && Outcome(*awaited_); }

absl::Status PushLane::AwaitOutcome(uint64_t last, const Retry& retry) {
  MutexLock lock(&mutex_);
  std::optional<absl::Status> outcome;
  awaited_ = last;
  while (!(outcome = Outcome(last))) {
    if (!changed_.WaitFor(&mutex_, retry.AttemptTimeout(absl::InfiniteDuration()))) {
      outcome = absl::DeadlineExceededError("no acknowledgement");
      break;
    }
  }
  awaited_.reset();
  return *std::move(outcome);
}

void PushLane::RestartFailed(uint64_t last) {
  MutexLock lock(&mutex_);
  for (auto& [sequence, push] : pushes_) {
    if (sequence <= last && push.end_sent && push.ack && !push.ack->ok()) push.Restart();
  }
}

void PushLane::OnSent() {
  {
    MutexLock lock(&mutex_);
    sending_ = false;
  }
  Pump();
}

void PushLane::OnReceived(const grpc::ByteBuffer& message) {
  v1::PushAck ack;
  const absl::Status parsed = ParseFromBuffer(message, &ack);
  bool over = false;
  {
    MutexLock lock(&mutex_);
    if (!parsed.ok()) {
      closed_ = parsed;
    } else if (const auto found = pushes_.find(ack.sequence()); found != pushes_.end()) {
      Acknowledge(&found->second, FromRichStatus(ack.status()));
    }
    over = Over();
  }
  // Not under the lock, which the thread that wakes takes first.
  if (over) changed_.NotifyAll();
}

void PushLane::Acknowledge(Push* push, absl::Status status) {
  const auto detail = ErrorDetailOf(status);
  if (detail.has_value() && detail->reason() == v1::ROLLED_BACK &&
      detail->lineage() < push->begin.header().lineage()) {
    // Lineages only rise: this server was replaced and does not know it yet.
    closed_ = absl::UnavailableError(status.message());
  } else {
    push->ack = std::move(status);
  }
}

void PushLane::OnClosed(const absl::Status& status) {
  bool over = false;
  {
    MutexLock lock(&mutex_);
    if (!closed_) closed_ = status;
    over = Over();
  }
  if (over) changed_.NotifyAll();
}

}  // namespace shardstep::internal
