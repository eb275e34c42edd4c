#include "shardstep/server/thread_pool.h"

#include <algorithm>
#include <utility>

namespace shardstep {

ThreadPool::ThreadPool(int threads) {
  for (int i = 0; i < std::max(threads, 1); ++i) threads_.emplace_back([this] { Work(); });
}

void ThreadPool::Stop() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  wake_.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  std::deque<std::shared_ptr<Job>> late;  // destroyed without the lock
  MutexLock lock(&mutex_);
  stopped_ = true;
  late.swap(jobs_);
}

void ThreadPool::ForEach(size_t count, std::function<void(size_t)> body,
                         std::function<void()> done) {
  auto job = std::make_shared<Job>();
  // A job without items still calls done() from a worker: one item that does nothing.
  job->body = count == 0 ? [](size_t) {} : std::move(body);
  job->count = std::max<size_t>(count, 1);
  job->done = std::move(done);
  {
    MutexLock lock(&mutex_);
    if (stopped_) return;
    jobs_.push_back(std::move(job));
  }
  wake_.NotifyAll();
}

void ThreadPool::Work() {
  for (;;) {
    std::shared_ptr<Job> job;
    {
      MutexLock lock(&mutex_);
      while (jobs_.empty() && !stopping_) wake_.Wait(&mutex_);
      if (jobs_.empty()) return;
      job = jobs_.front();
      // Its last item is taken: what is left of it is in other threads' hands.
      if (job->next.load(std::memory_order_relaxed) >= job->count) {
        jobs_.pop_front();
        continue;
      }
    }
    Help(job.get());
  }
}

void ThreadPool::Help(Job* job) {
  for (size_t i; (i = job->next.fetch_add(1, std::memory_order_relaxed)) < job->count;) {
    job->body(i);
    if (job->finished.fetch_add(1, std::memory_order_acq_rel) + 1 == job->count) {
      std::function<void()> done = std::move(job->done);
      job->body = nullptr;
      done();
    }
  }
}

}  // namespace shardstep
