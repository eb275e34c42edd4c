#include "shardstep/server/serializer.h"

#include <utility>

namespace shardstep {

void Serializer::Run(std::function<void()> task) {
  {
    MutexLock lock(&mutex_);
    if (running_) {
      tasks_.push_back(std::move(task));
      return;
    }
    running_ = true;
  }
  for (;;) {
    task();
    // What the task holds dies outside the lock.
    task = nullptr;
    MutexLock lock(&mutex_);
    if (tasks_.empty()) {
      running_ = false;
      return;
    }
    task = std::move(tasks_.front());
    tasks_.pop_front();
  }
}

}  // namespace shardstep
