// What a checkpoint needs of a file system, behind a seam, so that a test can fail or stop it at
// any write, rename or sync.
//
// Every call blocks until the disk, or the page cache, has done it. Errors carry path, operation
// and the system's words, `"/mnt/c/a": rename to "/mnt/c/b": No such file or directory`, under the
// code that errno maps to (NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, RESOURCE_EXHAUSTED for a
// full disk, ...). Paths are the caller's to check: nothing here keeps them inside a root.
#ifndef SHARDSTEP_CHECKPOINT_FILE_SYSTEM_H_
#define SHARDSTEP_CHECKPOINT_FILE_SYSTEM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace shardstep {

// A file that this process made. The destructor closes it, whatever state it is in; the file stays.
class WritableFile {
 public:
  virtual ~WritableFile() = default;

  // Makes the file `bytes` long, with zeros, before anything is written: a disk that is too full is
  // found now. Does nothing where the file system cannot.
  virtual absl::Status Reserve(int64_t bytes) = 0;
  // Writes all of `data` behind what was appended so far. One thread at a time. The disk starts on
  // what is long enough ago, so that Sync finds little left.
  virtual absl::Status Append(absl::string_view data) = 0;
  // Writes all of `data` at `offset`, bytes from the file's start; it may lie beyond the end. Safe
  // from several threads, as long as nobody appends.
  virtual absl::Status WriteAt(int64_t offset, absl::string_view data) = 0;
  // Returns when everything written so far is on the disk (fdatasync).
  virtual absl::Status Sync() = 0;
  // Once, last. Does not sync.
  virtual absl::Status Close() = 0;
};

// A file open for reading. Safe from several threads.
class ReadableFile {
 public:
  virtual ~ReadableFile() = default;

  // Reads `size` bytes at `offset` into `out`, fewer only where the file ends; returns how many.
  virtual absl::StatusOr<size_t> ReadAt(int64_t offset, char* out, size_t size) const = 0;
  // Bytes of the file, now.
  virtual absl::StatusOr<int64_t> Size() const = 0;
  virtual const std::string& path() const = 0;
};

struct DirectoryEntry {
  std::string name;  // without a folder
  bool is_directory = false;
};

// Safe from several threads.
class FileSystem {
 public:
  virtual ~FileSystem() = default;

  // Makes the directory and those above it, where they are missing; what was made is durable.
  virtual absl::Status CreateDirectories(const std::string& path) = 0;
  // ALREADY_EXISTS if there is one.
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> CreateFile(const std::string& path) = 0;
  virtual absl::StatusOr<std::unique_ptr<ReadableFile>> OpenFile(const std::string& path) = 0;
  // Returns when a file that another process may have written is on the disk as it is now.
  virtual absl::Status SyncFile(const std::string& path) = 0;
  // Replaces a file, or an empty directory, at `to`. Durable after SyncDirectory.
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  // Returns when the names in the directory are on the disk as they are now.
  virtual absl::Status SyncDirectory(const std::string& path) = 0;
  // What the directory holds, without "." and "..", sorted by name. A symbolic link is no
  // directory.
  virtual absl::StatusOr<std::vector<DirectoryEntry>> List(const std::string& path) = 0;
  // Whether there is something at `path`; an error if that cannot be told.
  virtual absl::StatusOr<bool> Exists(const std::string& path) = 0;
  virtual absl::Status RemoveFile(const std::string& path) = 0;
  // It must be empty.
  virtual absl::Status RemoveDirectory(const std::string& path) = 0;
};

// The machine's own. Never deleted.
FileSystem* PosixFileSystem();

// Removes the directory and all that it holds; what symbolic links point to stays. OK if there is
// none. An error leaves some of it.
absl::Status RemoveTree(FileSystem* files, const std::string& path);

// The whole file. RESOURCE_EXHAUSTED, without reading it, if it has more than `max_bytes`.
absl::StatusOr<std::string> ReadWholeFile(FileSystem* files, const std::string& path,
                                          int64_t max_bytes);

// Makes the file, writes and syncs it. ALREADY_EXISTS if there is one.
absl::Status WriteWholeFile(FileSystem* files, const std::string& path, absl::string_view content);

// "a/b" of "a" and "b".
std::string JoinPath(absl::string_view folder, absl::string_view name);

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_FILE_SYSTEM_H_
