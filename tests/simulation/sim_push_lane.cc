#include "shardstep/tests/simulation/sim_push_lane.h"

#include <algorithm>
#include <utility>

#include "absl/time/time.h"
#include "shardstep/v1/shards.pb.h"
#include "shardstep/wire/frame.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

constexpr absl::Duration kRetryDelay = absl::Milliseconds(300);
// Without an acknowledgement for so long the connection counts as dead.
constexpr absl::Duration kPatience = absl::Seconds(6);
constexpr absl::Duration kLatestStray = absl::Seconds(8);

std::string Encoded(const v1::FrameHeader& header) { return EncodeFramePrefix(header, {}).bytes; }

}  // namespace

void SimPushLane::Add(OutgoingPush push) {
  const uint64_t sequence = push.begin.header().sequence();
  held_[sequence].push = std::move(push);
  Pump();
}

void SimPushLane::Repeat(uint64_t first, uint64_t last) {
  for (auto held = held_.lower_bound(first); held != held_.end() && held->first <= last; ++held) {
    held->second.state = State::kUnsent;
  }
  Pump();
}

void SimPushLane::Forget(uint64_t first_live) {
  held_.erase(held_.begin(), held_.lower_bound(first_live));
}

bool SimPushLane::AllAcknowledged() const {
  return std::all_of(held_.begin(), held_.end(),
                     [](const auto& entry) { return entry.second.state == State::kAcknowledged; });
}

void SimPushLane::PumpLater() {
  if (std::exchange(pump_due_, true)) return;
  outside_.simulation->After(
      outside_.simulation->random().Between(absl::ZeroDuration(), kRetryDelay), outside_.process,
      "push again", [this] {
        pump_due_ = false;
        Pump();
      });
}

void SimPushLane::Pump() {
  for (auto& [sequence, held] : held_) {
    if (held.state != State::kUnsent) continue;
    if (stream_ == nullptr) {
      stream_ = outside_.network->Open(outside_.process, outside_.find(), StreamKind::kPush,
                                       {[this](const std::string& bytes) { OnAck(bytes); },
                                        [this](const absl::Status&) { OnClosed(); }});
    }
    held.state = State::kSent;
    Send(stream_, held.push);
    const int attempt = ++held.attempts;
    if (attempt > 1) outside_.simulation->probes().Hit("push_sent_again");
    if (outside_.network->Repeats()) SendStray(held.push);
    // From now on a Begin of it is that of a repeat.
    held.push.begin.set_digest(held.push.end.digest());
    outside_.simulation->After(kPatience, outside_.process, "push patience",
                               [this, sequence = sequence, attempt] {
                                 const auto found = held_.find(sequence);
                                 if (found == held_.end() || found->second.attempts != attempt ||
                                     found->second.state != State::kSent || stream_ == nullptr) {
                                   return;
                                 }
                                 stream_->Break();
                               });
  }
}

void SimPushLane::Send(const std::shared_ptr<SimStream>& stream, const OutgoingPush& push) {
  v1::FrameHeader begin;
  *begin.mutable_begin() = push.begin;
  stream->Send(SimStream::kCaller, Encoded(begin));
  for (const std::string& frame : push.frames) stream->Send(SimStream::kCaller, frame);
  v1::FrameHeader end;
  *end.mutable_end() = push.end;
  stream->Send(SimStream::kCaller, Encoded(end));
}

void SimPushLane::SendStray(const OutgoingPush& push) {
  outside_.simulation->probes().Hit("push_strayed");
  Send(outside_.network->Open(
           outside_.process, outside_.find(), StreamKind::kPush, {},
           outside_.simulation->random().Between(absl::ZeroDuration(), kLatestStray)),
       push);
}

void SimPushLane::OnAck(const std::string& bytes) {
  v1::PushAck ack;
  if (!ack.ParseFromString(bytes)) return;
  const auto found = held_.find(ack.sequence());
  if (found == held_.end() || found->second.state != State::kSent) return;
  const absl::Status status = FromRichStatus(ack.status());
  if (status.ok()) {
    found->second.state = State::kAcknowledged;
    return outside_.acknowledged();
  }
  // A server that was replaced, and is behind.
  const auto detail = ErrorDetailOf(status);
  const bool behind = ReasonOf(status) == v1::ROLLED_BACK &&
                      detail->lineage() < found->second.push.begin.header().lineage();
  if (behind) outside_.simulation->probes().Hit("replaced_server_answered");
  if (!IsTransient(status) && !behind) return outside_.refused(status);
  found->second.state = State::kUnsent;
  PumpLater();
}

void SimPushLane::OnClosed() {
  stream_.reset();
  for (auto& [sequence, held] : held_) {
    if (held.state == State::kSent) held.state = State::kUnsent;
  }
  PumpLater();
}

}  // namespace shardstep
