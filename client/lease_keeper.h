// LeaseKeeper: renews leases in the background, all of one client in one thread.
#ifndef SHARDSTEP_CLIENT_LEASE_KEEPER_H_
#define SHARDSTEP_CLIENT_LEASE_KEEPER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "shardstep/client/retry.h"
#include "shardstep/sharding/mutex.h"

namespace shardstep::internal {

// Thread-safe. The thread starts with the first lease and ends with the keeper.
class LeaseKeeper {
 public:
  // One lease; renewed until it is destroyed, which blocks while a renewal runs. Must not outlive
  // the keeper.
  class Lease {
   public:
    ~Lease() { keeper_->Remove(id_); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

   private:
    friend class LeaseKeeper;
    Lease(LeaseKeeper* keeper, uint64_t id) : keeper_(keeper), id_(id) {}

    LeaseKeeper* const keeper_;
    const uint64_t id_;
  };

  LeaseKeeper() = default;
  ~LeaseKeeper();

  // Calls `renew` on the keeper's thread, every third of `lease` from now on. It may block, for a
  // short while.
  std::unique_ptr<Lease> Keep(absl::Duration lease, std::function<void()> renew);

 private:
  struct Entry {
    absl::Duration every;
    absl::Time next;
    std::function<void()> renew;
  };

  void Remove(uint64_t id);
  void Run();

  Timer* const timer_ = Timer::Steady();
  Mutex mutex_;
  CondVar changed_;
  std::map<uint64_t, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_id_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t running_ ABSL_GUARDED_BY(mutex_) = 0;  // whose renewal runs; 0 = none
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_LEASE_KEEPER_H_
