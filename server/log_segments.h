// LogSegments: the segments of a write-ahead log as a recovery finds them, and their records in
// order.
//
// A segment says in its first record which record stood before it: the last whole one of the
// segment before.
#ifndef SHARDSTEP_SERVER_LOG_SEGMENTS_H_
#define SHARDSTEP_SERVER_LOG_SEGMENTS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/server/record_file.h"
#include "shardstep/v1/log.pb.h"

namespace shardstep {

// "<kind>-<number>", so padded that names sort as numbers do.
std::string NumberedName(absl::string_view kind, uint64_t number);
// The inverse; absent for any other name.
std::optional<uint64_t> NumberOf(absl::string_view kind, absl::string_view name);

// What a machine with one numeric fingerprint wrote, one with another does not replay.
// FAILED_PRECONDITION, naming both and the file.
absl::Status CheckFingerprint(const std::string& path, uint32_t written, uint32_t own);

// Every call blocks on the disk. Not thread-safe.
class LogSegments {
 public:
  struct Options {
    std::string optimizer;
    uint32_t numeric_fingerprint = 0;
    // Records up to it are left out, except those named as pending.
    uint64_t base_lsn = 0;
    std::set<uint64_t> pending;
  };
  struct Segment {
    uint64_t first_lsn = 0;
    std::string path;
    v1::SegmentStart start;
    // Of what was read.
    int64_t bytes = 0;
  };
  struct Record {
    uint64_t lsn = 0;
    v1::LogRecord message;
    // By LoggedPrepare.gradients, flat byte tensors of the sizes that stand there.
    std::vector<at::Tensor> payload;
  };

  // Borrows `files`.
  LogSegments(FileSystem* files, std::string directory, Options options);

  // Finds the segments that have a record to be read; `found` has the numbers of all, rising.
  // Removes those at the end that have nothing whole: they were never synced. DATA_LOSS: one is
  // missing or broken.
  absl::Status Find(std::vector<uint64_t> found);
  // The next record, not the first ones of segments; absent: there is no more. DATA_LOSS: one in
  // between is broken or missing. FAILED_PRECONDITION: see CheckFingerprint.
  absl::StatusOr<std::optional<Record>> Next();

  // The last whole record read, or the one before the first segment.
  const ChainPosition& last() const { return last_; }
  const std::vector<Segment>& segments() const { return segments_; }

 private:
  uint64_t FirstNeeded() const;
  bool Needed(uint64_t lsn) const { return lsn > options_.base_lsn || options_.pending.count(lsn); }
  absl::StatusOr<std::optional<v1::SegmentStart>> ReadStart(uint64_t first_lsn,
                                                            const std::string& path) const;
  // Of the segment that is being read; absent: it has no more.
  absl::StatusOr<std::optional<Record>> ReadRecord();

  FileSystem* const files_;
  const std::string directory_;
  const Options options_;
  std::vector<Segment> segments_;
  size_t reading_ = 0;  // index into segments_
  std::unique_ptr<RecordReader> reader_;
  ChainPosition last_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_LOG_SEGMENTS_H_
