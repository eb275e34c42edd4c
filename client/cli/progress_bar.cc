#include "shardstep/client/cli/progress_bar.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "shardstep/client/cli/table.h"

namespace shardstep {
namespace {

constexpr int kWidth = 32;
constexpr absl::Duration kPause = absl::Milliseconds(50);
constexpr char kClearLine[] = "\r\x1b[K";

}  // namespace

std::string ProgressText(const std::string& what, uint64_t done, uint64_t total,
                         absl::Duration elapsed) {
  const double seconds = absl::ToDoubleSeconds(elapsed);
  const uint64_t rate =
      seconds > 0 ? static_cast<uint64_t>(static_cast<double>(done) / seconds) : 0;
  const std::string speed = absl::StrCat(", ", FormatBytes(rate), "/s");
  if (total == 0) return absl::StrCat(what, " ", FormatBytes(done), speed);
  const double part = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const size_t filled = static_cast<size_t>(part * kWidth);
  return absl::StrFormat("%s [%s%s] %3.0f%% %s of %s%s", what, std::string(filled, '#'),
                         std::string(kWidth - filled, '.'), part * 100, FormatBytes(done),
                         FormatBytes(total), speed);
}

bool IsTerminal(const std::ostream& err) { return &err == &std::cerr && isatty(STDERR_FILENO); }

ProgressBar::ProgressBar(std::string what, std::ostream& err, bool terminal)
    : what_(std::move(what)), err_(err), terminal_(terminal), start_(absl::Now()) {}

void ProgressBar::Clear() {
  if (shown_ != absl::InfinitePast()) err_ << kClearLine << std::flush;
  shown_ = absl::InfinitePast();
}

Progress ProgressBar::callback() {
  if (!terminal_) return nullptr;
  return [this](uint64_t done, uint64_t total) { Show(done, total); };
}

void ProgressBar::Show(uint64_t done, uint64_t total) {
  const absl::Time now = absl::Now();
  if (now - shown_ < kPause) return;
  shown_ = now;
  err_ << kClearLine << ProgressText(what_, done, total, now - start_) << std::flush;
}

}  // namespace shardstep
