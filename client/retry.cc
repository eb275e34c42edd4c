#include "shardstep/client/retry.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

class SteadyTimer final : public Timer {
 public:
  absl::Time Now() const override {
    return absl::UnixEpoch() +
           absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
  }
  void SleepFor(absl::Duration duration) override { absl::SleepFor(duration); }
};

// gRPC's sentences about connections, in a user's words.
std::string TransportWords(const absl::Status& status) {
  const absl::string_view message = status.message();
  if (absl::StrContains(message, "Connection refused")) return "connection refused";
  if (absl::StrContains(message, "DNS resolution failed")) return "host name not found";
  if (absl::StrContains(message, "Socket closed") ||
      absl::StrContains(message, "Connection reset")) {
    return "connection lost";
  }
  if (status.code() == absl::StatusCode::kDeadlineExceeded) return "no answer";
  return message.empty() ? absl::StatusCodeToString(status.code()) : std::string(message);
}

}  // namespace

Timer* Timer::Steady() {
  static SteadyTimer* const timer = new SteadyTimer;
  return timer;
}

double RetryPolicy::UniformRandom() {
  thread_local absl::BitGen generator;
  return absl::Uniform(generator, 0.0, 1.0);
}

absl::Duration Backoff::Next() {
  const absl::Duration wait = limit_ * random_();
  limit_ = std::min(longest_, limit_ * 2);
  return wait;
}

void RetryBudget::OnCall() {
  MutexLock lock(&mutex_);
  tokens_ = std::min(burst_, tokens_ + 0.1);
}

absl::Duration RetryBudget::Withdraw(absl::Time now) {
  MutexLock lock(&mutex_);
  if (refilled_ != absl::InfinitePast()) {
    tokens_ = std::min(burst_, tokens_ + per_second_ * absl::ToDoubleSeconds(now - refilled_));
  }
  refilled_ = now;
  tokens_ -= 1.0;
  return tokens_ >= 0.0 ? absl::ZeroDuration() : absl::Seconds(-tokens_ / per_second_);
}

bool IsTransient(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDataLoss:
      return true;
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kInternal:
      return absl::StrContains(status.message(), "RST_STREAM") ||
             absl::StrContains(status.message(), "Stream removed");
    default:
      return false;
  }
}

Retry::Retry(const RetryPolicy& policy, absl::Time deadline)
    : policy_(policy),
      deadline_(deadline),
      started_(policy.timer->Now()),
      backoff_(policy.first_backoff, policy.longest_backoff, policy.random) {
  if (policy_.budget != nullptr) policy_.budget->OnCall();
}

bool Retry::Again(const absl::Status& status) {
  ++attempts_;
  if (status.ok() || !IsTransient(status)) return false;
  const absl::Time now = policy_.timer->Now();
  if (now >= deadline_) return false;
  absl::Duration wait = std::max(backoff_.Next(), RetryDelayOf(status));
  if (policy_.budget != nullptr) wait = std::max(wait, policy_.budget->Withdraw(now));
  policy_.timer->SleepFor(std::min(wait, deadline_ - now));
  return policy_.timer->Now() < deadline_;
}

absl::Duration Retry::AttemptTimeout(absl::Duration longest) const {
  return std::max(absl::Milliseconds(1), std::min(longest, deadline_ - policy_.timer->Now()));
}

absl::Status Retry::Explain(absl::string_view who, const absl::Status& status) const {
  if (status.ok() || !IsTransient(status)) return status;
  const bool keeps_code = status.code() == absl::StatusCode::kResourceExhausted ||
                          status.code() == absl::StatusCode::kDataLoss;
  const absl::StatusCode code = keeps_code ? status.code() : absl::StatusCode::kUnavailable;
  absl::Status explained(code, absl::StrCat(who, ": ", TransportWords(status), ", ", attempts_,
                                            attempts_ == 1 ? " attempt in " : " attempts in ",
                                            Seconds(policy_.timer->Now() - started_)));
  status.ForEachPayload([&explained](absl::string_view type, const absl::Cord& payload) {
    explained.SetPayload(type, payload);
  });
  return explained;
}

std::string Seconds(absl::Duration duration) {
  return absl::StrFormat("%.1f s", absl::ToDoubleSeconds(duration));
}

}  // namespace shardstep::internal
