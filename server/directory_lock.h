// DirectoryLock: one server at a time uses a data directory.
#ifndef SHARDSTEP_SERVER_DIRECTORY_LOCK_H_
#define SHARDSTEP_SERVER_DIRECTORY_LOCK_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace shardstep {

// Held until it is destroyed or the process ends, however it does.
class DirectoryLock {
 public:
  // Makes the directory where it is missing. The file LOCK in it names the process, for people and
  // for `shardctl fleet down`. FAILED_PRECONDITION if another process holds the lock.
  static absl::StatusOr<std::unique_ptr<DirectoryLock>> Take(const std::string& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  explicit DirectoryLock(int fd) : fd_(fd) {}

  const int fd_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_DIRECTORY_LOCK_H_
