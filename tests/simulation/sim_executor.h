// SimExecutor: work that a simulated server hands to other threads comes later, as an event; other
// events may come before it.
#ifndef SHARDSTEP_TESTS_SIMULATION_SIM_EXECUTOR_H_
#define SHARDSTEP_TESTS_SIMULATION_SIM_EXECUTOR_H_

#include <cstddef>
#include <functional>
#include <utility>

#include "absl/time/time.h"
#include "shardstep/server/executor.h"
#include "shardstep/tests/simulation/simulation.h"

namespace shardstep {

class SimExecutor final : public Executor {
 public:
  // Both must outlive it. A job takes up to `longest`.
  SimExecutor(Simulation* simulation, Process* process, const char* name, absl::Duration longest)
      : simulation_(simulation), process_(process), name_(name), longest_(longest) {}

  void ForEach(size_t count, std::function<void(size_t)> body,
               std::function<void()> done) override {
    simulation_->After(simulation_->random().Between(absl::ZeroDuration(), longest_), process_,
                       name_, [count, body = std::move(body), done = std::move(done)] {
                         for (size_t i = 0; i < count; ++i) body(i);
                         done();
                       });
  }

 private:
  Simulation* const simulation_;
  Process* const process_;
  const char* const name_;
  const absl::Duration longest_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_SIMULATION_SIM_EXECUTOR_H_
