#include "shardstep/server/directory_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

absl::Status Error(const std::string& path, absl::string_view operation) {
  return absl::ErrnoToStatus(errno, absl::StrCat("\"", path, "\": ", operation));
}

}  // namespace

absl::StatusOr<std::unique_ptr<DirectoryLock>> DirectoryLock::Take(const std::string& directory) {
  SHARDSTEP_RETURN_IF_ERROR(PosixFileSystem()->CreateDirectories(directory));
  const std::string path = JoinPath(directory, "LOCK");
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return Error(path, "open");
  std::unique_ptr<DirectoryLock> lock(new DirectoryLock(fd));
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return Error(path, "lock");
    return absl::FailedPreconditionError(absl::StrCat(
        "data directory \"", directory, "\" is in use by another server; give each its own"));
  }
  const std::string pid = absl::StrCat(getpid(), "\n");
  if (ftruncate(fd, 0) != 0 ||
      pwrite(fd, pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return Error(path, "write");
  }
  return lock;
}

DirectoryLock::~DirectoryLock() { close(fd_); }

}  // namespace shardstep
