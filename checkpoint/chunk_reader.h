// Reading a file of a checkpoint in its checksummed chunks.
#ifndef SHARDSTEP_CHECKPOINT_CHUNK_READER_H_
#define SHARDSTEP_CHECKPOINT_CHUNK_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/checkpoint/manifest.h"
#include "shardstep/checkpoint/safetensors.h"

namespace shardstep {

// Borrows the record. Blocks on the disk. Safe from several threads. Errors name the file.
class ChunkReader {
 public:
  // DATA_LOSS: the file is missing or has another size than its record says.
  static absl::StatusOr<ChunkReader> Open(FileSystem* files, const std::string& directory,
                                          const FileRecord& record);

  // Where chunk `chunk` begins and ends in the file.
  int64_t Begin(size_t chunk) const;
  int64_t End(size_t chunk) const;

  // The chunk that holds byte `offset` of the file.
  size_t ChunkOf(int64_t offset) const { return offset / record_->chunk_bytes; }

  // Reads the chunks [first, last) into *bytes, each as the record's checksum says. DATA_LOSS names
  // the bytes of the first that is not; *bytes then holds what the file has.
  absl::Status Read(size_t first, size_t last, std::vector<char>* bytes) const;

  // The file's safetensors header. DATA_LOSS: damaged, or none.
  absl::StatusOr<SafetensorsHeader> ReadHeader() const;

  // DATA_LOSS if `bytes` are not those of the chunk.
  absl::Status Check(size_t chunk, absl::string_view bytes) const;

 private:
  ChunkReader(std::unique_ptr<ReadableFile> file, const FileRecord* record)
      : file_(std::move(file)), record_(record) {}

  std::unique_ptr<ReadableFile> file_;
  const FileRecord* record_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_CHUNK_READER_H_
