#include "shardstep/client/cli/server_lock.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <utility>

// Of glibc 2.36, which forgot it.
extern "C" {
#include <sys/pidfd.h>
}

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

std::string LockPath(const std::string& data_directory) {
  return absl::StrCat(data_directory, "/LOCK");
}

absl::StatusOr<bool> IsLocked(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return absl::ErrnoToStatus(errno, absl::StrCat("\"", path, "\": cannot be opened"));
  }
  // Shared, so that two that look at once do not see each other.
  const bool locked = flock(file, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  close(file);
  return locked;
}

}  // namespace

absl::StatusOr<std::optional<pid_t>> RunningServer(const std::string& data_directory) {
  const std::string path = LockPath(data_directory);
  SHARDSTEP_ASSIGN_OR_RETURN(const bool locked, IsLocked(path));
  if (!locked) return std::nullopt;
  pid_t pid = 0;
  std::ifstream(path) >> pid;
  if (pid < 1) {
    return absl::FailedPreconditionError(absl::StrCat(
        "\"", path, "\": a server holds it, but it does not hold the server's process id"));
  }
  return pid;
}

absl::StatusOr<std::optional<StoppingServer>> StoppingServer::Stop(
    const std::string& data_directory) {
  SHARDSTEP_ASSIGN_OR_RETURN(const std::optional<pid_t> pid, RunningServer(data_directory));
  if (!pid) return std::nullopt;
  const int descriptor = pidfd_open(*pid, 0);
  if (descriptor < 0) {
    if (errno == ESRCH) return std::nullopt;
    return absl::ErrnoToStatus(errno,
                               absl::StrCat("process ", *pid, " of \"", data_directory, "\""));
  }
  StoppingServer server(*pid, descriptor);
  // The descriptor stands for one process for ever. If the lock is still held by that number now,
  // it is the server's.
  SHARDSTEP_ASSIGN_OR_RETURN(const std::optional<pid_t> again, RunningServer(data_directory));
  if (again != pid) return std::nullopt;
  if (pidfd_send_signal(descriptor, SIGTERM, nullptr, 0) != 0 && errno != ESRCH) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("SIGTERM to process ", *pid, " of \"", data_directory, "\""));
  }
  return std::optional<StoppingServer>(std::move(server));
}

StoppingServer::StoppingServer(StoppingServer&& other) noexcept
    : pid_(other.pid_), descriptor_(std::exchange(other.descriptor_, -1)) {}

StoppingServer::~StoppingServer() {
  if (descriptor_ >= 0) close(descriptor_);
}

bool StoppingServer::WaitFor(absl::Duration timeout) const {
  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    const absl::Duration left = std::max(deadline - absl::Now(), absl::ZeroDuration());
    pollfd ended{descriptor_, POLLIN, 0};
    const int count = poll(&ended, 1, static_cast<int>(absl::ToInt64Milliseconds(left)));
    if (count >= 0 || errno != EINTR) return count > 0;
  }
}

}  // namespace shardstep
