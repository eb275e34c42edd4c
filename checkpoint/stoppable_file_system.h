// StoppableFileSystem: another file system, until it is stopped. So a process that ends does not
// wait for the gigabytes that one of its threads is writing.
#ifndef SHARDSTEP_CHECKPOINT_STOPPABLE_FILE_SYSTEM_H_
#define SHARDSTEP_CHECKPOINT_STOPPABLE_FILE_SYSTEM_H_

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "shardstep/checkpoint/file_system.h"

namespace shardstep {

// Thread-safe as the file system below it. After Stop every operation fails with UNAVAILABLE, those
// on files that are open included; one that is under way runs to its end. Must outlive its files.
class StoppableFileSystem final : public FileSystem {
 public:
  // Borrows `files`.
  explicit StoppableFileSystem(FileSystem* files) : files_(files) {}

  void Stop() { stopped_.store(true, std::memory_order_relaxed); }

  absl::Status CreateDirectories(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> CreateFile(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<ReadableFile>> OpenFile(const std::string& path) override;
  absl::Status SyncFile(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status SyncDirectory(const std::string& path) override;
  absl::StatusOr<std::vector<DirectoryEntry>> List(const std::string& path) override;
  absl::StatusOr<bool> Exists(const std::string& path) override;
  absl::Status RemoveFile(const std::string& path) override;
  absl::Status RemoveDirectory(const std::string& path) override;

  // OK until it is stopped.
  absl::Status Check() const;

 private:
  FileSystem* const files_;
  std::atomic<bool> stopped_{false};
};

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_STOPPABLE_FILE_SYSTEM_H_
