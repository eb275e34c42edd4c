// WriteAheadLog: what one server has prepared and decided of one optimizer, on its disk.
//
// Files in its directory: log-<lsn>, segments, named by the number of their first record, each made
// anew (a server that starts begins one); base-<lsn>, whole versions (server/base_file.h), which
// replace all records up to their number that they do not name as pending; staged-<n>, base files
// of changes that were prepared. Names are zero-padded decimals, so that they sort. Files end in
// ".tmp" until they are whole and synced; those are removed at the next start.
//
// Life: Open, ReadBase, ReadNext until there is no more, then appends.
#ifndef SHARDSTEP_SERVER_WRITE_AHEAD_LOG_H_
#define SHARDSTEP_SERVER_WRITE_AHEAD_LOG_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/server/base_file.h"
#include "shardstep/server/log_segments.h"
#include "shardstep/server/record_file.h"
#include "shardstep/v1/log.pb.h"

namespace shardstep {

// Every method blocks on the disk. Not thread-safe, except that WriteBase and WriteStaged may run
// beside one another and beside one call of anything but Destroy.
class WriteAheadLog {
 public:
  struct Options {
    std::string optimizer;
    int server_rank = 0;
    uint32_t numeric_fingerprint = 0;
    // A segment that has more is followed by a new one.
    int64_t segment_bytes = 64 << 20;
  };

  // Makes the directory where it is missing, and removes what a death left half-written. `files`
  // must outlive it.
  static absl::StatusOr<std::unique_ptr<WriteAheadLog>> Open(FileSystem* files,
                                                             std::string directory,
                                                             Options options);

  const std::string& directory() const { return directory_; }

  // ---- recovery

  // The newest base. Absent: there is none. DATA_LOSS: it is broken; naming file and place.
  absl::StatusOr<std::optional<Base>> ReadBase();
  // The next record behind the base, or one that it names as pending; absent: there is no more.
  // What a death cut off at the end is left out. DATA_LOSS: a record in between is broken or
  // missing. FAILED_PRECONDITION: a segment was written with another numeric fingerprint.
  using Record = LogSegments::Record;
  absl::StatusOr<std::optional<Record>> ReadNext();
  absl::StatusOr<Base> ReadStaged(const std::string& file);

  // ---- writing, after recovery

  // Appends one record, not synced; returns its number. Numbers rise; the log takes some for
  // itself. Reads first what recovery left unread. RESOURCE_EXHAUSTED: the disk is full, nothing
  // was written and the log goes on; a record without a payload meets that only as the first after
  // a start, since room is reserved for some behind every other. Any other error is for good.
  absl::StatusOr<uint64_t> Append(const v1::LogRecord& record,
                                  absl::Span<const absl::string_view> payload);
  // The number of the last record that was appended or found.
  uint64_t last_lsn() const { return last_lsn_; }
  // What was appended before it began is on the disk when it returns. An error (DATA_LOSS) is for
  // good: the process must end, and what it finds when it starts again counts.
  absl::Status Sync();

  // Writes, syncs and names a base: `header.lsn` is its number. RESOURCE_EXHAUSTED: the disk is
  // full; the log is as it was.
  absl::Status WriteBase(const v1::BaseHeader& header, const LocalState& state);
  // The same for what a change was staged to; the file's name is new.
  absl::StatusOr<std::string> WriteStaged(const v1::BaseHeader& header, const LocalState& state);
  // Syncs first, so that what makes the file superfluous is on the disk.
  absl::Status RemoveStaged(const std::string& file);
  // Removes what the base of that number replaces: older bases, segments and staged files whose
  // records all stand before it and are not pending in it.
  absl::Status Truncate(const v1::BaseHeader& base);
  // Removes everything, the directory too, at one instant. There is nothing more to read then.
  absl::Status Destroy();

  // Bytes of records and staged files that a recovery would read behind the newest base.
  int64_t bytes_behind_base() const;

 private:
  struct Staged {
    uint64_t lsn = 0;  // of the last record that names it
    int64_t bytes = 0;
  };

  WriteAheadLog(FileSystem* files, std::string directory, Options options);

  absl::Status FindFiles();
  absl::Status FinishRecovery();
  absl::Status BeginSegment();
  absl::StatusOr<std::unique_ptr<RecordWriter>> MakeSegment(const std::string& path,
                                                            const v1::SegmentStart& start);
  absl::Status RemoveDurably(const std::string& path);
  void NoteStaged(uint64_t lsn, const v1::LogRecord& record);
  absl::Status WriteNamed(const std::string& name, const v1::BaseHeader& header,
                          const LocalState& state);
  absl::Status RemoveReplaced();

  FileSystem* const files_;
  const std::string directory_;
  const Options options_;
  std::atomic<uint64_t> next_staged_ = 1;

  // The newest base; 0: there is none, or it was not read.
  uint64_t base_lsn_ = 0;
  std::set<uint64_t> pending_;
  std::vector<LogSegments::Segment> segments_;
  std::map<std::string, Staged> staged_;

  // Until all was read.
  std::vector<uint64_t> found_segments_;
  std::vector<std::string> found_staged_;
  uint64_t found_base_ = 0;
  std::unique_ptr<LogSegments> replay_;
  bool recovered_ = false;

  // The last whole record.
  ChainPosition last_;
  // Numbers up to it were given; higher than last_.lsn where the base is all there is of a record.
  uint64_t last_lsn_ = 0;
  std::unique_ptr<RecordWriter> writer_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_WRITE_AHEAD_LOG_H_
