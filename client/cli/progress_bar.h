// How far a long call is, as one line of a terminal that is drawn anew. For one thread.
#ifndef SHARDSTEP_CLIENT_CLI_PROGRESS_BAR_H_
#define SHARDSTEP_CLIENT_CLI_PROGRESS_BAR_H_

#include <cstdint>
#include <ostream>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "shardstep/client/state_dict.h"

namespace shardstep {

// "restore [########........]  50% 1.5 GiB of 3.0 GiB, 512.0 MiB/s"; without the bar where `total`
// is 0, which means that it is not known yet.
std::string ProgressText(const std::string& what, uint64_t done, uint64_t total,
                         absl::Duration elapsed);

// Whether `err` is the process's standard error and that is a terminal.
bool IsTerminal(const std::ostream& err);

class ProgressBar {
 public:
  // Shows nothing if `err` is no `terminal`. `err` must outlive the bar.
  ProgressBar(std::string what, std::ostream& err, bool terminal);
  ProgressBar(std::string what, std::ostream& err)
      : ProgressBar(std::move(what), err, IsTerminal(err)) {}
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  ~ProgressBar() { Clear(); }

  // Takes the line off the terminal, before anything else is written there.
  void Clear();

  // For a call's options. The bar must outlive it.
  Progress callback();

 private:
  void Show(uint64_t done, uint64_t total);

  const std::string what_;
  std::ostream& err_;
  const bool terminal_;
  const absl::Time start_;
  absl::Time shown_ = absl::InfinitePast();
};

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_CLI_PROGRESS_BAR_H_
