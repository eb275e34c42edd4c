// A program that a test runs as its child.
#ifndef SHARDSTEP_TESTS_CHILD_PROCESS_H_
#define SHARDSTEP_TESTS_CHILD_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace shardstep {

// For one thread. The program is killed when this object goes, and when the thread that started it
// ends, however that happens: nothing outlives the test.
class ChildProcess {
 public:
  enum class StandardError { kLogged, kInherited };

  // `arguments` begin with the program's path. Its standard output is appended to the file `log`,
  // and so is its standard error, unless it has this process's.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(
      const std::vector<std::string>& arguments, const std::string& log,
      StandardError standard_error = StandardError::kLogged);
  ~ChildProcess() { Kill(); }
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  // Its exit code once it has ended (128 + signal where a signal ended it). Never blocks.
  std::optional<int> ExitCode();
  // Blocks until it has ended, for `patience` at most.
  std::optional<int> AwaitExit(absl::Duration patience);
  // Nothing once it has ended.
  void Signal(int signal);
  // SIGKILL; blocks until it is gone.
  void Kill();
  // The last lines of the log.
  std::string LogTail() const;

 private:
  ChildProcess(pid_t pid, std::string log) : pid_(pid), log_(std::move(log)) {}

  const pid_t pid_;
  const std::string log_;
  std::optional<int> exit_code_;
};

// Path of `file`, named from the repository's root, among the test's data. Without Bazel's
// environment: those beside the running program.
std::string RunfilePath(const std::string& file);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_CHILD_PROCESS_H_
