#include "shardstep/sharding/mutex.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace shardstep {
namespace {

class Counter {
 public:
  void Add() {
    MutexLock lock(&mutex_);
    ++count_;
    changed_.NotifyAll();
  }

  // Blocks until Add was called `count` times.
  void WaitUntil(int count) {
    MutexLock lock(&mutex_);
    while (count_ < count) changed_.Wait(&mutex_);
  }

  // The same with a limit for each wait; returns false if one ran out.
  bool WaitUntil(int count, absl::Duration timeout) {
    MutexLock lock(&mutex_);
    while (count_ < count) {
      if (!changed_.WaitFor(&mutex_, timeout)) return false;
    }
    return true;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
};

void AddFromFourThreads(int times, Counter* counter) {
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([=] {
      for (int i = 0; i < times; ++i) counter->Add();
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(MutexTest, ExcludesOtherThreads) {
  Counter counter;
  AddFromFourThreads(10'000, &counter);
  EXPECT_TRUE(counter.WaitUntil(40'000, absl::ZeroDuration()));
  EXPECT_FALSE(counter.WaitUntil(40'001, absl::ZeroDuration()));
}

TEST(CondVarTest, WaitEndsWithTheNotification) {
  Counter counter;
  std::thread adder([&] { AddFromFourThreads(100, &counter); });
  counter.WaitUntil(400);
  adder.join();
}

TEST(CondVarTest, WaitForEndsWithTheNotification) {
  for (const absl::Duration timeout : {absl::Hours(1), absl::InfiniteDuration()}) {
    Mutex mutex;
    CondVar changed;
    bool done = false;
    MutexLock lock(&mutex);
    // Waits for the lock until WaitFor gives it up: the notification never comes too early.
    std::thread notifier([&] {
      MutexLock notifier_lock(&mutex);
      done = true;
      changed.NotifyAll();
    });
    while (!done) EXPECT_TRUE(changed.WaitFor(&mutex, timeout));
    notifier.join();
  }
}

TEST(CondVarTest, WaitForRunsOut) {
  Counter counter;
  EXPECT_FALSE(counter.WaitUntil(1, absl::Milliseconds(1)));
  EXPECT_FALSE(counter.WaitUntil(1, absl::ZeroDuration()));
  EXPECT_FALSE(counter.WaitUntil(1, -absl::InfiniteDuration()));
}

}  // namespace
}  // namespace shardstep
