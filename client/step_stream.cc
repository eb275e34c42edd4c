#include "shardstep/client/step_stream.h"

#include <atomic>
#include <deque>
#include <future>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "shardstep/wire/byte_buffer.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

using Answer = absl::StatusOr<v1::StepReply>;

}  // namespace

// One stream, from its start to its end.
class StepStream::Call final : private StreamListener {
 public:
  explicit Call(const StartCall& start) : stream_(start(this)) {}

  // Is over, or has as many steps open as it may.
  bool spent() const { return over_ || open_ >= kMaxOpenSteps; }

  // nullopt: full.
  std::optional<Answer> Step(const v1::StepRequest& request, absl::Duration timeout) {
    v1::StepCalls::Call call;
    *call.mutable_request() = request;
    call.set_timeout_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(timeout)));
    uint64_t id;
    std::future<Answer> answer;
    {
      MutexLock lock(&mutex_);
      if (over_) return ended_;
      if (open_ >= kMaxOpenSteps) return std::nullopt;
      ++open_;
      id = ++last_id_;
      call.set_id(id);
      answer = waiting_[id].get_future();
      unsent_.push_back(std::move(call));
    }
    Pump();
    if (answer.wait_for(absl::ToChronoNanoseconds(timeout)) != std::future_status::ready) {
      MutexLock lock(&mutex_);
      if (waiting_.erase(id) > 0) return absl::DeadlineExceededError("no answer");
    }
    return answer.get();
  }

 private:
  void Pump() {
    v1::StepCalls calls;
    {
      MutexLock lock(&mutex_);
      if (sending_ || unsent_.empty()) return;
      sending_ = true;
      size_t bytes = 0;
      do {
        bytes += unsent_.front().ByteSizeLong();
        *calls.add_calls() = std::move(unsent_.front());
        unsent_.pop_front();
      } while (!unsent_.empty() && calls.calls_size() < kMaxOpenSteps &&
               bytes + unsent_.front().ByteSizeLong() <= kMaxPageBytes);
    }
    stream_->Send(SerializeToBuffer(calls), /*another_follows=*/false);
  }

  void OnSent() override {
    {
      MutexLock lock(&mutex_);
      sending_ = false;
    }
    Pump();
  }

  void OnReceived(const grpc::ByteBuffer& message) override {
    v1::StepAnswers answers;
    const absl::Status parsed = ParseFromBuffer(message, &answers);
    if (!parsed.ok()) return End(parsed);
    std::vector<std::pair<std::promise<Answer>, Answer>> answered;
    {
      MutexLock lock(&mutex_);
      for (v1::StepAnswers::Answer& answer : *answers.mutable_answers()) {
        --open_;
        const auto waiting = waiting_.find(answer.id());
        if (waiting == waiting_.end()) continue;  // waited long enough
        absl::Status status = FromRichStatus(answer.status());
        answered.emplace_back(
            std::move(waiting->second),
            status.ok() ? Answer(std::move(*answer.mutable_reply())) : Answer(std::move(status)));
        waiting_.erase(waiting);
      }
    }
    for (auto& [promise, answer] : answered) promise.set_value(std::move(answer));
  }

  void OnClosed(const absl::Status& status) override {
    End(status.ok() ? absl::UnavailableError("the server ended the stream") : status);
  }

  void End(const absl::Status& status) {
    std::map<uint64_t, std::promise<Answer>> waiting;
    {
      MutexLock lock(&mutex_);
      if (over_) return;
      over_ = true;
      ended_ = status;
      waiting.swap(waiting_);
    }
    for (auto& [id, promise] : waiting) promise.set_value(status);
  }

  std::atomic<bool> over_{false};  // set under the lock
  std::atomic<int> open_{0};       // sent or to be, and not answered; changed under the lock

  Mutex mutex_;
  absl::Status ended_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_id_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, std::promise<Answer>> waiting_ ABSL_GUARDED_BY(mutex_);  // by id
  std::deque<v1::StepCalls::Call> unsent_ ABSL_GUARDED_BY(mutex_);
  bool sending_ ABSL_GUARDED_BY(mutex_) = false;

  // Last: its events use the members above.
  const std::unique_ptr<ByteStream> stream_;
};

StepStream::StepStream(StartCall start) : start_(std::move(start)) {}
StepStream::~StepStream() = default;

absl::StatusOr<v1::StepReply> StepStream::Step(const v1::StepRequest& request,
                                               absl::Duration timeout) {
  std::optional<Answer> answer;
  while (!answer) answer = Current()->Step(request, timeout);
  return *std::move(answer);
}

std::shared_ptr<StepStream::Call> StepStream::Current() {
  {
    MutexLock lock(&mutex_);
    if (call_ != nullptr && !call_->spent()) return call_;
  }
  // Calls start, and end, outside the lock: of several that start now one is kept.
  auto fresh = std::make_shared<Call>(start_);
  std::shared_ptr<Call> spent;
  MutexLock lock(&mutex_);
  if (call_ == nullptr || call_->spent()) spent = std::exchange(call_, std::move(fresh));
  return call_;
}

}  // namespace shardstep::internal
