#include "shardstep/examples/digits/training_progress.h"

#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_format.h"

namespace shardstep {
namespace {

constexpr int kBarWidth = 32;

}  // namespace

std::string ProgressLine(uint64_t step, uint64_t steps, double loss, double accuracy,
                         double steps_per_second) {
  const double done = steps == 0 ? 1 : static_cast<double>(step) / static_cast<double>(steps);
  const size_t filled = static_cast<size_t>(done * kBarWidth);
  const std::string bar = std::string(filled, '#') + std::string(kBarWidth - filled, '.');
  return absl::StrFormat("[%s] %3.0f%% step %d/%d loss %.4f accuracy %.3f %.0f steps/s", bar,
                         done * 100, step, steps, loss, accuracy, steps_per_second);
}

TrainingProgress::TrainingProgress(uint64_t first_step, uint64_t steps, bool visible)
    : first_step_(first_step),
      steps_(steps),
      visible_(visible),
      terminal_(isatty(STDERR_FILENO) != 0),
      start_(std::chrono::steady_clock::now()),
      shown_(start_) {}

void TrainingProgress::Show(uint64_t step, double loss, double accuracy) {
  const auto now = std::chrono::steady_clock::now();
  const auto pause = terminal_ ? std::chrono::milliseconds(50) : std::chrono::milliseconds(1000);
  if (!visible_ || (step != steps_ && now - shown_ < pause)) return;
  shown_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double speed = seconds > 0 ? static_cast<double>(step - first_step_) / seconds : 0;
  const std::string line = ProgressLine(step, steps_, loss, accuracy, speed);
  const char* const end = terminal_ && step != steps_ ? "" : "\n";
  std::fprintf(stderr, "%s%s%s%s", terminal_ ? "\r" : "", line.c_str(), terminal_ ? "\x1b[K" : "",
               end);
  std::fflush(stderr);
}

}  // namespace shardstep
