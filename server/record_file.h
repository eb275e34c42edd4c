// Records: how messages with bytes behind them lie in a file, one after the other, so that a reader
// knows which are whole, and that none is missing in between.
//
// A record, little-endian, is
//   u32 CRC32C of all that follows | u32 bytes of the message | u64 bytes of the payload |
//   u64 lsn | u32 CRC32C of the record before it (0: none) | message | payload
// Records are numbered (lsn) without gaps within a file. A length of the message of 0, or the end
// of the file, ends it: the rest of a file may be reserved space.
#ifndef SHARDSTEP_SERVER_RECORD_FILE_H_
#define SHARDSTEP_SERVER_RECORD_FILE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/v1/log.pb.h"

namespace shardstep {

// The last record of a chain.
struct ChainPosition {
  uint64_t lsn = 0;
  uint32_t crc32c = 0;
};

// Appends records to a new file. Every call blocks on the disk. Not thread-safe.
class RecordWriter {
 public:
  // The first record gets the lsn behind `after`.
  RecordWriter(std::unique_ptr<WritableFile> file, ChainPosition after);

  // Writes a record; not synced. Room for `spare` bytes behind it is reserved too: where the disk
  // is full by then, smaller records without a payload still fit. After an error the record is not
  // there, and the next one is written over what there is of it. RESOURCE_EXHAUSTED: the disk is
  // full.
  absl::Status Append(const v1::LogRecord& record, absl::Span<const absl::string_view> payload,
                      int64_t spare = 0);
  absl::Status Sync() { return file_->Sync(); }

  const ChainPosition& last() const { return last_; }
  // Bytes of all records so far.
  int64_t bytes() const { return bytes_; }

 private:
  absl::Status Reserve(int64_t bytes);

  const std::unique_ptr<WritableFile> file_;
  ChainPosition last_;
  int64_t bytes_ = 0;
  int64_t reserved_ = 0;
};

// Reads them in order. Every call blocks on the disk. Not thread-safe.
class RecordReader {
 public:
  explicit RecordReader(std::unique_ptr<ReadableFile> file);

  struct Record {
    ChainPosition position;
    // Of the record before it, as this one says.
    uint32_t previous_crc32c = 0;
    v1::LogRecord message;
    uint64_t payload_bytes = 0;
  };
  // Says where a record's payload goes: parts whose sizes together are payload_bytes; anything
  // else: it is not wanted. It is asked before the record was checked, which may then turn out to
  // be none.
  using Place = absl::FunctionRef<std::vector<absl::Span<char>>(const Record&)>;
  // The next record; absent where the file ends or what follows is not a whole record: then
  // `torn()` says whether there is something. Its checksum, that of its payload too, and that it
  // continues the one before it in this file, hold. Memory is taken only for what the file really
  // has. An error: the file cannot be read.
  absl::StatusOr<std::optional<Record>> Next(Place place);
  // The same, of records whose payload is not wanted.
  absl::StatusOr<std::optional<Record>> Next();

  // Something that is no whole record follows the last one.
  bool torn() const { return torn_; }
  const std::string& path() const { return file_->path(); }
  // Where the next record begins, or what there is instead; bytes from the file's start.
  int64_t offset() const { return offset_; }

 private:
  // Fills `out` with what stands at `*offset`; moves that behind it, and extends `*crc` over it.
  absl::Status Read(absl::Span<char> out, int64_t* offset, uint32_t* crc) const;

  const std::unique_ptr<ReadableFile> file_;
  std::optional<ChainPosition> last_;
  int64_t offset_ = 0;
  bool torn_ = false;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_RECORD_FILE_H_
