// SimulatedFileSystem: a disk in memory that forgets what was not synced, for tests. One seed, one
// outcome.
//
// What a process reads is what it wrote; what a crash leaves is up to the crash, as far as nothing
// was synced:
// - of a file, each page of 4 KiB that was written since the last Sync is as it was then, as it is
//   now, or torn: new at its beginning, old behind. So is its size.
// - of a directory, a prefix of what was done to its names since the last SyncDirectory survives. A
//   new file whose name survives may have none of its content.
// CreateDirectories is durable at once, as FileSystem promises, and so is a rename from one
// directory to another with all that was done before in both, as of a journal.
#ifndef SHARDSTEP_CHECKPOINT_SIMULATED_FILE_SYSTEM_H_
#define SHARDSTEP_CHECKPOINT_SIMULATED_FILE_SYSTEM_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/checkpoint/file_system.h"

namespace shardstep {

// For one thread. Must outlive its files. Nothing blocks.
class SimulatedFileSystem final : public FileSystem {
 public:
  SimulatedFileSystem();
  ~SimulatedFileSystem() override;

  // ---- death

  // The process is dead: until Restart or Crash every change fails with UNAVAILABLE and has no
  // effect. Reads go on.
  void Freeze() { FreezeAt(0); }
  // It dies before the change number `at`, counted from now and from 0.
  void FreezeAt(int64_t at) { freeze_at_ = changes_ + at; }
  // It is started again, on a machine that lived on: nothing is lost. Changes through files that
  // were opened before go on failing.
  void Restart();
  // The same on a machine that lost its memory: `random` decides, see above. Any source of numbers
  // that are uniform in 64 bits.
  void Crash(const std::function<uint64_t()>& random);

  // ---- errors on demand. Freeze comes before them; Restart and Crash keep them.

  // Changes so far: create, reserve, write, sync, rename, remove, whether they failed or not.
  int64_t changes() const { return changes_; }
  // The change number `at`, counted from now and from 0, fails with `error` and has no effect.
  void FailChange(int64_t at, absl::Status error);
  // OK: syncs work.
  void SetSyncError(absl::Status error) { sync_error_ = std::move(error); }
  // The disk holds so many bytes of files; what needs more fails with RESOURCE_EXHAUSTED, a write
  // after what fits was written. Less than what it has: it is full. Negative: no limit.
  void SetLimit(int64_t bytes) { limit_ = bytes; }
  int64_t used_bytes() const;

  // All files and directories as they are now, durable, without what was set above.
  std::unique_ptr<SimulatedFileSystem> Clone() const;

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

 private:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  struct Node;
  class File;
  class Reader;
  using NodePtr = std::shared_ptr<Node>;

  // Absent (null): there is nothing.
  NodePtr Find(const std::string& path) const;
  // The directory that `path` stands in, or is to stand in. NOT_FOUND.
  absl::StatusOr<NodePtr> ParentOf(const std::string& path, const std::string& operation) const;
  absl::Status BeforeChange(const std::string& path, const std::string& operation);
  absl::Status Remove(const std::string& path, bool is_directory);
  // Bytes that may still be added.
  int64_t room() const;

  NodePtr root_;
  int64_t freeze_at_ = kNever;
  // Of the process; files that an earlier one opened are dead.
  int64_t process_ = 0;
  int64_t changes_ = 0;
  int64_t fail_at_ = kNever;
  absl::Status fail_with_;
  absl::Status sync_error_;
  int64_t limit_ = -1;
};

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_SIMULATED_FILE_SYSTEM_H_
