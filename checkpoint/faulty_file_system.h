// A file system that goes wrong on purpose, for tests.
#ifndef SHARDSTEP_CHECKPOINT_FAULTY_FILE_SYSTEM_H_
#define SHARDSTEP_CHECKPOINT_FAULTY_FILE_SYSTEM_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/checkpoint/file_system.h"

namespace shardstep {

// Passes everything on to another file system, counts, and fails one operation that changes
// something: create, write, sync, rename, remove. For one thread.
class FaultyFileSystem : public FileSystem {
 public:
  enum class Fault {
    kError,       // the operation fails and does nothing; later ones work
    kShortWrite,  // a write does half and fails, others as kError; later ones work
    kCrash,       // a write does half, and it and everything after it fails, as if the process died
  };

  // Borrows `base`.
  explicit FaultyFileSystem(FileSystem* base) : base_(base) {}

  // The operation number `at` (from 0, counted from now) goes wrong. Mends what was broken.
  void FailAt(int64_t at, Fault fault);
  // Operations that change something since the last FailAt, the failed one included.
  int64_t mutations() const { return mutations_; }
  // Whether the fault has struck.
  bool struck() const { return struck_; }

  struct ReadCall {
    std::string path;
    int64_t offset;
    size_t size;
  };
  // Every ReadAt so far.
  std::vector<ReadCall>& reads() { return reads_; }

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

  // For the files that it hands out: whether the next change may go ahead, and how much of a write.
  absl::Status BeforeChange(const std::string& what, size_t* write_bytes = nullptr);
  absl::Status BeforeRead(const std::string& what) const;

 private:
  FileSystem* const base_;
  int64_t fail_at_ = -1;
  Fault fault_ = Fault::kError;
  int64_t mutations_ = 0;
  bool struck_ = false;
  std::vector<ReadCall> reads_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_FAULTY_FILE_SYSTEM_H_
