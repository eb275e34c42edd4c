// ThreadPool: the server's worker threads, the only place where optimizer work runs.
#ifndef SHARDSTEP_SERVER_THREAD_POOL_H_
#define SHARDSTEP_SERVER_THREAD_POOL_H_

#include <atomic>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "shardstep/server/executor.h"
#include "shardstep/sharding/mutex.h"

namespace shardstep {

// Jobs are taken in the order handed in; the items of one job are spread over all threads.
// Thread-safe. The destructor finishes the jobs handed in and joins.
class ThreadPool final : public Executor {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool() override;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  void ForEach(size_t count, std::function<void(size_t)> body, std::function<void()> done) override;

 private:
  struct Job {
    std::function<void(size_t)> body;
    std::function<void()> done;
    size_t count = 0;
    std::atomic<size_t> next{0};
    std::atomic<size_t> finished{0};
  };

  void Work();
  // Takes items of `job` until none is left.
  static void Help(Job* job);

  Mutex mutex_;
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<std::shared_ptr<Job>> jobs_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_THREAD_POOL_H_
