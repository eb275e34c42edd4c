// A server that this process started, as its child. For one thread.
#ifndef SHARDSTEP_CLIENT_CLI_SERVER_PROCESS_H_
#define SHARDSTEP_CLIENT_CLI_SERVER_PROCESS_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace shardstep {

// The program shardstep-server: beside this one, or where Bazel builds both. NOT_FOUND, naming the
// places.
absl::StatusOr<std::string> FindServerBinary();

class ServerProcess {
 public:
  // Starts `arguments` (the program's path first) in a session of its own, so that a Ctrl-C at the
  // terminal does not reach it, and appends its output to the file `log`. The system's error where
  // that fails.
  static absl::StatusOr<ServerProcess> Start(const std::vector<std::string>& arguments,
                                             const std::string& log);

  pid_t pid() const { return pid_; }

  // How it ended ("exit status 1", "killed by signal 9"), or nothing while it runs. Never blocks.
  const std::optional<std::string>& Ended();

  // Nothing if it has ended.
  void Signal(int signal);
  // Blocks until it has ended.
  void Join();

  // The last lines that it wrote, indented, each behind a line break; empty if it wrote nothing.
  std::string LogTail() const;

 private:
  ServerProcess(pid_t pid, std::string log, long log_begin)
      : pid_(pid), log_(std::move(log)), log_begin_(log_begin) {}
  void Reap(int options);

  pid_t pid_;
  std::string log_;
  long log_begin_;  // earlier runs wrote what lies before it
  std::optional<std::string> ended_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_CLI_SERVER_PROCESS_H_
