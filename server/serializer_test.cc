#include "shardstep/server/serializer.h"

#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace shardstep {
namespace {

TEST(SerializerTest, TaskHandedInByATaskRunsBehindIt) {
  Serializer serializer;
  std::string order;
  serializer.Run([&] {
    serializer.Run([&] { order += 'b'; });
    order += 'a';
  });
  EXPECT_EQ(order, "ab");
}

TEST(SerializerTest, RunsOneTaskAtATimeInEachThreadsOrder) {
  constexpr int kThreads = 4;
  constexpr int kTasks = 5000;
  Serializer serializer;
  // Without a lock on purpose: the serializer is what protects them.
  int inside = 0;
  std::vector<int> last(kThreads, 0);
  int done = 0;
  bool orderly = true;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 1; i <= kTasks; ++i) {
        serializer.Run([&, t, i] {
          orderly = orderly && ++inside == 1 && last[t] == i - 1;
          last[t] = i;
          ++done;
          --inside;
        });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  bool all = false;
  serializer.Run([&] { all = orderly && done == kThreads * kTasks; });
  EXPECT_TRUE(all);
}

}  // namespace
}  // namespace shardstep
