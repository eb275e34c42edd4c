// One safetensors file that holds whole tensors: a state dict on its way to or from Python.
#ifndef SHARDSTEP_CHECKPOINT_SAFETENSORS_FILE_H_
#define SHARDSTEP_CHECKPOINT_SAFETENSORS_FILE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/checkpoint/safetensors.h"

namespace shardstep {

// An open file with a checked header. Immutable: safe from several threads. The file must not be
// changed meanwhile; if it is, reads give other bytes or fail, nothing worse.
class SafetensorsReader {
 public:
  // Errors as ReadSafetensorsHeader, and the file system's.
  static absl::StatusOr<SafetensorsReader> Open(FileSystem* files, const std::string& path);

  // By their place in the file.
  const std::vector<SafetensorsEntry>& entries() const { return header_.entries; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const std::string& path() const { return file_->path(); }

  // Reads `size` bytes of entries()[entry] from `offset`, bytes from the tensor's start, into
  // `out`. INVALID_ARGUMENT: the tensor has no such bytes; DATA_LOSS: the file has become shorter.
  absl::Status Read(size_t entry, int64_t offset, char* out, int64_t size) const;

 private:
  SafetensorsReader(std::unique_ptr<ReadableFile> file, SafetensorsHeader header)
      : file_(std::move(file)), header_(std::move(header)) {}

  std::unique_ptr<ReadableFile> file_;
  SafetensorsHeader header_;
};

// A file in the making, under a temporary name beside `path`; it gets its own when it is committed.
// One that is destroyed before is removed.
class SafetensorsWriter {
 public:
  // Lays out `entries` (their begin and end are set here, the rest is the caller's) in their order.
  // Errors as LayoutSafetensors, and the file system's.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      FileSystem* files, const std::string& path, std::vector<SafetensorsEntry> entries,
      const std::map<std::string, std::string>& metadata);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  const std::vector<SafetensorsEntry>& entries() const { return entries_; }

  // Writes bytes of entries()[entry] from `offset`, bytes from the tensor's start. Safe from
  // several threads. Every byte of every tensor is to be written once. INVALID_ARGUMENT: the tensor
  // has no such bytes.
  absl::Status WriteAt(size_t entry, int64_t offset, absl::string_view bytes);

  // When all is written: makes it durable and replaces whatever was at `path`. Once.
  // FAILED_PRECONDITION: bytes are missing, or were written twice.
  absl::Status Commit();

 private:
  SafetensorsWriter(FileSystem* files, std::string path, std::string temporary,
                    std::vector<SafetensorsEntry> entries, int64_t data_begin,
                    std::unique_ptr<WritableFile> file);

  FileSystem* const files_;
  const std::string path_;
  const std::string temporary_;
  const std::vector<SafetensorsEntry> entries_;
  const int64_t data_begin_;
  std::unique_ptr<WritableFile> file_;  // null once committed
  std::atomic<int64_t> written_{0};     // bytes of the data
};

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_SAFETENSORS_FILE_H_
