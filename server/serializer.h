// Serializer: runs tasks one after the other, each to its end, on whatever threads hand them in.
//
// The state machines of this folder (coordinator, shard host) have no locks of their own: all their
// methods run inside one Serializer each, so that a simulation can drive them on a single thread. A
// task must be short and must not block; tensor work goes to an Executor.
#ifndef SHARDSTEP_SERVER_SERIALIZER_H_
#define SHARDSTEP_SERVER_SERIALIZER_H_

#include <deque>
#include <functional>

#include "shardstep/sharding/mutex.h"

namespace shardstep {

// Thread-safe. Must outlive every Run, which a task guarantees by holding its owner.
class Serializer {
 public:
  // Runs `task` now on this thread if no task is running, else leaves it to the thread that is at
  // work. Tasks run in the order handed in. May be called from within a task: the new one runs
  // after it.
  void Run(std::function<void()> task);

 private:
  Mutex mutex_;
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_SERIALIZER_H_
