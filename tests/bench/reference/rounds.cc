#include "shardstep/tests/bench/reference/rounds.h"

#include <thread>

#include "absl/time/clock.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {

Rounds::Rounds(absl::Duration duration, bool lockstep, int parts)
    : end_(absl::Now() + duration), lockstep_(lockstep), parts_(parts) {}

absl::StatusOr<bool> Rounds::Begin(int64_t round) {
  MutexLock lock(&mutex_);
  if (round >= begun_ && !over_) {
    if (!lockstep_ || ++asking_ == parts_) {
      asking_ = 0;
      over_ = begun_ > 0 && absl::Now() >= end_;
      if (!over_) ++begun_;
      decided_.NotifyAll();
    }
    while (round >= begun_ && !over_) {
      const absl::Duration left = give_up() - absl::Now();
      if (left <= absl::ZeroDuration()) {
        return absl::DeadlineExceededError("the other direction does not end its round");
      }
      decided_.WaitFor(&mutex_, left);
    }
  }
  if (!status_.ok()) return absl::CancelledError("another part of the transfer failed");
  return round < begun_;
}

void Rounds::Fail(const absl::Status& error) {
  MutexLock lock(&mutex_);
  over_ = true;
  status_.Update(error);
  decided_.NotifyAll();
}

int64_t Rounds::count() const {
  MutexLock lock(&mutex_);
  return begun_;
}

absl::Status Rounds::status() const {
  MutexLock lock(&mutex_);
  return status_;
}

absl::StatusOr<RoundsResult> RunRounds(absl::Duration duration, bool lockstep,
                                       const std::vector<TransferPart>& parts) {
  Rounds rounds(duration, lockstep, static_cast<int>(parts.size()));
  const absl::Time begin = absl::Now();
  std::vector<std::thread> threads;
  for (const TransferPart& part : parts) {
    threads.emplace_back([&rounds, &part] {
      const absl::Status status = part(rounds);
      if (!status.ok()) rounds.Fail(status);
    });
  }
  for (std::thread& thread : threads) thread.join();
  SHARDSTEP_RETURN_IF_ERROR(rounds.status());
  return RoundsResult{rounds.count(), absl::ToDoubleSeconds(absl::Now() - begin)};
}

}  // namespace shardstep
