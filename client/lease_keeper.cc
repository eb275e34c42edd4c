#include "shardstep/client/lease_keeper.h"

#include <algorithm>
#include <utility>

namespace shardstep::internal {

LeaseKeeper::~LeaseKeeper() {
  std::thread thread;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
    thread = std::move(thread_);
  }
  if (thread.joinable()) thread.join();
}

std::unique_ptr<LeaseKeeper::Lease> LeaseKeeper::Keep(absl::Duration lease,
                                                      std::function<void()> renew) {
  const absl::Duration every = std::max(lease / 3, absl::Milliseconds(1));
  MutexLock lock(&mutex_);
  const uint64_t id = ++last_id_;
  entries_[id] = {every, timer_->Now() + every, std::move(renew)};
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
  changed_.NotifyAll();
  return std::unique_ptr<Lease>(new Lease(this, id));
}

void LeaseKeeper::Remove(uint64_t id) {
  MutexLock lock(&mutex_);
  entries_.erase(id);
  while (running_ == id) changed_.Wait(&mutex_);
}

void LeaseKeeper::Run() {
  mutex_.Lock();
  while (!stopping_) {
    const auto due = std::min_element(
        entries_.begin(), entries_.end(),
        [](const auto& a, const auto& b) { return a.second.next < b.second.next; });
    const absl::Duration wait =
        due == entries_.end() ? absl::InfiniteDuration() : due->second.next - timer_->Now();
    if (wait > absl::ZeroDuration()) {
      changed_.WaitFor(&mutex_, wait);
      continue;
    }
    due->second.next = timer_->Now() + due->second.every;
    running_ = due->first;
    const std::function<void()> renew = due->second.renew;
    mutex_.Unlock();
    renew();
    mutex_.Lock();
    running_ = 0;
    changed_.NotifyAll();
  }
  mutex_.Unlock();
}

}  // namespace shardstep::internal
