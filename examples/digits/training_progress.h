// A trainer's progress on its standard error: a bar that is drawn anew on a terminal, else a line
// now and then. For one thread.
#ifndef SHARDSTEP_EXAMPLES_DIGITS_TRAINING_PROGRESS_H_
#define SHARDSTEP_EXAMPLES_DIGITS_TRAINING_PROGRESS_H_

#include <chrono>
#include <cstdint>
#include <string>

namespace shardstep {

// "[######......]  50% step 330/660 loss 0.1234 accuracy 0.950 412 steps/s"
std::string ProgressLine(uint64_t step, uint64_t steps, double loss, double accuracy,
                         double steps_per_second);

class TrainingProgress {
 public:
  // `first_step` have been made before. Shows nothing if not `visible`.
  TrainingProgress(uint64_t first_step, uint64_t steps, bool visible);

  // `step` of the steps are done; `accuracy` is a fraction.
  void Show(uint64_t step, double loss, double accuracy);

 private:
  const uint64_t first_step_;
  const uint64_t steps_;
  const bool visible_;
  const bool terminal_;
  const std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point shown_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_EXAMPLES_DIGITS_TRAINING_PROGRESS_H_
