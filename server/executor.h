// Executor: where tensor work runs.
#ifndef SHARDSTEP_SERVER_EXECUTOR_H_
#define SHARDSTEP_SERVER_EXECUTOR_H_

#include <cstddef>
#include <functional>

namespace shardstep {

// Thread-safe. Never blocks the caller.
class Executor {
 public:
  virtual ~Executor() = default;

  // Calls body(0) ... body(count - 1), each once, in any order and on any threads, then done() on
  // one of them. With count 0 just done().
  virtual void ForEach(size_t count, std::function<void(size_t)> body,
                       std::function<void()> done) = 0;
};

// Runs everything at once on the calling thread, for tests and simulations.
class InlineExecutor final : public Executor {
 public:
  void ForEach(size_t count, std::function<void(size_t)> body,
               std::function<void()> done) override {
    for (size_t i = 0; i < count; ++i) body(i);
    done();
  }
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_EXECUTOR_H_
