#include "shardstep/client/lease_keeper.h"

#include <gtest/gtest.h>

#include "absl/time/time.h"
#include "shardstep/sharding/mutex.h"

namespace shardstep::internal {
namespace {

class Counter {
 public:
  void Add() {
    MutexLock lock(&mutex_);
    ++count_;
    changed_.NotifyAll();
  }
  void AwaitAtLeast(int count) {
    MutexLock lock(&mutex_);
    while (count_ < count) changed_.Wait(&mutex_);
  }
  int Get() {
    MutexLock lock(&mutex_);
    return count_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  int count_ = 0;
};

TEST(LeaseKeeperTest, RenewsEveryLeaseAgainAndAgain) {
  Counter first, second;
  LeaseKeeper keeper;
  const auto a = keeper.Keep(absl::Milliseconds(3), [&] { first.Add(); });
  const auto b = keeper.Keep(absl::Milliseconds(3), [&] { second.Add(); });
  first.AwaitAtLeast(3);
  second.AwaitAtLeast(3);
}

TEST(LeaseKeeperTest, NothingIsRenewedAfterALeaseIsGone) {
  Counter gone, kept;
  LeaseKeeper keeper;
  auto a = keeper.Keep(absl::Milliseconds(3), [&] { gone.Add(); });
  gone.AwaitAtLeast(1);
  a.reset();
  const int count = gone.Get();
  const auto b = keeper.Keep(absl::Milliseconds(3), [&] { kept.Add(); });
  kept.AwaitAtLeast(5);
  EXPECT_EQ(gone.Get(), count);
}

TEST(LeaseKeeperTest, ALeaseIsNotGoneWhileItIsRenewed) {
  Counter started, finished;
  Mutex mutex;
  CondVar never;
  LeaseKeeper keeper;
  auto lease = keeper.Keep(absl::Milliseconds(3), [&] {
    started.Add();
    MutexLock lock(&mutex);
    while (never.WaitFor(&mutex, absl::Milliseconds(20))) {
    }
    finished.Add();
  });
  started.AwaitAtLeast(1);
  lease.reset();
  EXPECT_EQ(started.Get(), finished.Get());
}

TEST(LeaseKeeperTest, EndsWithLeasesThatAreNotDue) {
  Counter never;
  LeaseKeeper keeper;
  const auto lease = keeper.Keep(absl::Hours(1), [&] { never.Add(); });
  EXPECT_EQ(never.Get(), 0);
}

}  // namespace
}  // namespace shardstep::internal
