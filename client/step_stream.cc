#include "shardstep/client/step_stream.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "shardstep/wire/byte_buffer.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

using Answer = absl::StatusOr<v1::StepReply>;
using Clock = std::chrono::steady_clock;

// Leaves room for what is around a request in its message.
constexpr size_t kMaxRequestBytes = kMaxMessageBytes - 1024;

uint32_t MillisecondsUntil(Clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
  return static_cast<uint32_t>(std::max<int64_t>(1, left.count()));
}

}  // namespace

// One stream, from its start to its end.
class StepStream::Call final : private StreamListener {
 public:
  explicit Call(const StartCall& start) : stream_(start(this)) {}

  // Is over, or has as many steps open as it may.
  bool spent() const { return over_ || open_ >= kMaxOpenSteps; }

  // False: it is full.
  bool Begin(const v1::StepRequest& request, Pending* pending) {
    Unsent unsent;
    unsent.deadline = pending->deadline_;
    *unsent.call.mutable_request() = request;
    {
      MutexLock lock(&mutex_);
      if (!over_ && open_ >= kMaxOpenSteps) return false;
      std::promise<Answer> promise;
      pending->answer_ = promise.get_future();
      if (over_) {
        promise.set_value(ended_);
        return true;
      }
      ++open_;
      pending->id_ = ++last_id_;
      unsent.call.set_id(last_id_);
      waiting_.emplace(last_id_, std::move(promise));
      unsent_.push_back(std::move(unsent));
    }
    Pump();
    return true;
  }

  // Whether the step was still waited for.
  bool GiveUp(uint64_t id) {
    MutexLock lock(&mutex_);
    return waiting_.erase(id) > 0;
  }

 private:
  struct Unsent {
    v1::StepCalls::Call call;
    Clock::time_point deadline;
  };

  void Pump() {
    v1::StepCalls calls;
    {
      MutexLock lock(&mutex_);
      if (sending_ || waking_) return;
      size_t bytes = 0;
      while (!unsent_.empty() && calls.calls_size() < kMaxOpenSteps) {
        Unsent& next = unsent_.front();
        if (waiting_.count(next.call.id()) == 0) {
          --open_;  // it waited long enough
        } else {
          bytes += next.call.ByteSizeLong();
          if (calls.calls_size() > 0 && bytes > kMaxPageBytes) break;
          next.call.set_timeout_ms(MillisecondsUntil(next.deadline));
          *calls.add_calls() = std::move(next.call);
        }
        unsent_.pop_front();
      }
      sending_ = calls.calls_size() > 0;
      if (!sending_) return;
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
    if (const absl::Status parsed = ParseFromBuffer(message, &answers); !parsed.ok()) {
      End(absl::UnavailableError(absl::StrCat("in place of answers to steps: ", parsed.message())));
      return stream_->Cancel();
    }
    std::vector<std::pair<std::promise<Answer>, Answer>> answered;
    {
      MutexLock lock(&mutex_);
      waking_ = true;
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
    {
      MutexLock lock(&mutex_);
      waking_ = false;
    }
    Pump();
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
  std::deque<Unsent> unsent_ ABSL_GUARDED_BY(mutex_);
  bool sending_ ABSL_GUARDED_BY(mutex_) = false;
  // Some are being told their answers: what they call next travels together.
  bool waking_ ABSL_GUARDED_BY(mutex_) = false;

  // Last: its events use the members above.
  const std::unique_ptr<ByteStream> stream_;
};

absl::StatusOr<v1::StepReply> StepStream::Pending::Await() {
  const bool answered = answer_.wait_until(deadline_) == std::future_status::ready;
  if (!answered && call_->GiveUp(id_)) return absl::DeadlineExceededError("no answer");
  return answer_.get();
}

StepStream::StepStream(StartCall start) : start_(std::move(start)) {}
StepStream::~StepStream() = default;

absl::StatusOr<StepStream::Pending> StepStream::Start(const v1::StepRequest& request,
                                                      absl::Duration timeout) {
  if (request.ByteSizeLong() > kMaxRequestBytes) {
    return absl::InvalidArgumentError(absl::StrCat("step request of ", request.ByteSizeLong(),
                                                   " bytes, expected at most ", kMaxRequestBytes));
  }
  Pending pending;
  pending.deadline_ = Clock::now() + absl::ToChronoNanoseconds(timeout);
  do {
    pending.call_ = Current();
  } while (!pending.call_->Begin(request, &pending));
  return pending;
}

std::shared_ptr<StepStream::Call> StepStream::Current() {
  {
    MutexLock lock(&mutex_);
    while (starting_) changed_.Wait(&mutex_);
    if (call_ != nullptr && !call_->spent()) return call_;
    starting_ = true;
  }
  // Calls start, and end, outside the lock.
  auto started = std::make_shared<Call>(start_);
  std::shared_ptr<Call> spent = started;
  {
    MutexLock lock(&mutex_);
    starting_ = false;
    call_.swap(spent);
  }
  changed_.NotifyAll();
  return started;
}

}  // namespace shardstep::internal
