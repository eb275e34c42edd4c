// The file LOCK in a server's data directory: the server holds an flock on it as long as it lives,
// and wrote its process id into it.
#ifndef SHARDSTEP_CLIENT_CLI_SERVER_LOCK_H_
#define SHARDSTEP_CLIENT_CLI_SERVER_LOCK_H_

#include <sys/types.h>

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace shardstep {

// The server that runs on `data_directory`, or nothing if none does, whatever the file says.
// FAILED_PRECONDITION: one does, but the file does not say which.
absl::StatusOr<std::optional<pid_t>> RunningServer(const std::string& data_directory);

// A process that SIGTERM was sent to.
class StoppingServer {
 public:
  // Sends SIGTERM to the server that runs on `data_directory`; to no other process, even if that
  // server ends meanwhile and its number is given away. Nothing if none runs. Errors: as
  // RunningServer, and the system's.
  static absl::StatusOr<std::optional<StoppingServer>> Stop(const std::string& data_directory);

  StoppingServer(StoppingServer&& other) noexcept;
  StoppingServer& operator=(StoppingServer&&) = delete;
  ~StoppingServer();

  pid_t pid() const { return pid_; }
  // Blocks until the process has ended, `timeout` at most; false if it still runs.
  bool WaitFor(absl::Duration timeout) const;

 private:
  StoppingServer(pid_t pid, int descriptor) : pid_(pid), descriptor_(descriptor) {}

  pid_t pid_;
  int descriptor_;  // a pidfd
};

}  // namespace shardstep

#endif  // SHARDSTEP_CLIENT_CLI_SERVER_LOCK_H_
