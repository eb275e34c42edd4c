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
// Thread-safe, except that Stop and the destructor are one thread's.
class ThreadPool final : public Executor {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool() override { Stop(); }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  void ForEach(size_t count, std::function<void(size_t)> body, std::function<void()> done) override;

  // Finishes the jobs handed in, also what they hand in themselves, and joins. Later jobs are
  // dropped: neither body nor done is called. A second call has no effect.
  void Stop();

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
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<std::shared_ptr<Job>> jobs_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_THREAD_POOL_H_
