#include "shardstep/server/thread_pool.h"

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "gtest/gtest.h"

namespace shardstep {
namespace {

TEST(ThreadPoolTest, RunsEachItemOnceAndThenDone) {
  std::vector<std::atomic<int>> runs(1000);
  std::atomic<int> total{0};
  std::atomic<int> seen_by_done{-1};
  {
    ThreadPool pool(4);
    pool.ForEach(
        runs.size(),
        [&](size_t i) {
          ++runs[i];
          ++total;
        },
        [&] { seen_by_done = total.load(); });
  }
  EXPECT_EQ(seen_by_done, 1000);
  for (const auto& count : runs) EXPECT_EQ(count, 1);
}

TEST(ThreadPoolTest, JobWithoutItemsIsDone) {
  std::atomic<bool> done{false};
  {
    ThreadPool pool(2);
    pool.ForEach(
        0, [](size_t) { FAIL(); }, [&] { done = true; });
  }
  EXPECT_TRUE(done);
}

TEST(ThreadPoolTest, DoneMayHandInTheNextJob) {
  std::atomic<int> jobs{0};
  std::function<void()> next;
  {
    ThreadPool pool(3);
    next = [&] {
      if (++jobs < 100)
        pool.ForEach(
            3, [](size_t) {}, next);
    };
    pool.ForEach(
        1, [](size_t) {}, next);
  }
  EXPECT_EQ(jobs, 100);
}

TEST(ThreadPoolTest, WhatComesAfterStopIsDropped) {
  std::atomic<int> calls{0};
  ThreadPool pool(2);
  const auto hand_in = [&] {
    pool.ForEach(
        4, [&](size_t) { ++calls; }, [&] { ++calls; });
  };
  hand_in();
  pool.Stop();
  EXPECT_EQ(calls, 5);
  hand_in();
  pool.Stop();
  EXPECT_EQ(calls, 5);
}

}  // namespace
}  // namespace shardstep
