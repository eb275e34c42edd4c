#include "shardstep/server/write_ahead_log.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "shardstep/server/faults.h"
#include "shardstep/server/sync_names.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

// Kept free behind every record: decisions are some tens of bytes.
constexpr int64_t kSpareBytes = 64 << 10;

}  // namespace

// ---- recovery

WriteAheadLog::WriteAheadLog(FileSystem* files, std::string directory, Options options)
    : files_(files), directory_(std::move(directory)), options_(std::move(options)) {}

absl::StatusOr<std::unique_ptr<WriteAheadLog>> WriteAheadLog::Open(FileSystem* files,
                                                                   std::string directory,
                                                                   Options options) {
  std::unique_ptr<WriteAheadLog> log(
      new WriteAheadLog(files, std::move(directory), std::move(options)));
  SHARDSTEP_RETURN_IF_ERROR(SHARDSTEP_FAILPOINT("log.open"));
  SHARDSTEP_RETURN_IF_ERROR(log->FindFiles());
  return log;
}

absl::Status WriteAheadLog::FindFiles() {
  SHARDSTEP_RETURN_IF_ERROR(files_->CreateDirectories(directory_));
  // What is found counts, so it must not be gone at the next start.
  SHARDSTEP_RETURN_IF_ERROR(files_->SyncDirectory(directory_));
  SHARDSTEP_ASSIGN_OR_RETURN(const auto entries, files_->List(directory_));
  for (const DirectoryEntry& entry : entries) {
    if (absl::EndsWith(entry.name, ".tmp")) {
      SHARDSTEP_RETURN_IF_ERROR(files_->RemoveFile(JoinPath(directory_, entry.name)));
    } else if (const auto base = NumberOf("base", entry.name)) {
      found_base_ = *base;
    } else if (const auto first_lsn = NumberOf("log", entry.name)) {
      found_segments_.push_back(*first_lsn);
    } else if (const auto staged = NumberOf("staged", entry.name)) {
      found_staged_.push_back(entry.name);
      next_staged_ = *staged + 1;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Base>> WriteAheadLog::ReadBase() {
  if (found_base_ == 0) return std::nullopt;
  const std::string path = JoinPath(directory_, NumberedName("base", found_base_));
  SHARDSTEP_ASSIGN_OR_RETURN(Base base, ReadBaseFile(files_, path, options_.server_rank));
  const std::string& optimizer = base.header.description().definition().name();
  if (base.header.lsn() != found_base_ || optimizer != options_.optimizer) {
    return absl::DataLossError(absl::StrCat("\"", path, "\": is a base of optimizer \"", optimizer,
                                            "\" up to record ", base.header.lsn(),
                                            ", expected of \"", options_.optimizer, "\""));
  }
  SHARDSTEP_RETURN_IF_ERROR(
      CheckFingerprint(path, base.header.numeric_fingerprint(), options_.numeric_fingerprint));
  base_lsn_ = found_base_;
  pending_ = {base.header.pending_lsns().begin(), base.header.pending_lsns().end()};
  return base;
}

absl::StatusOr<std::optional<WriteAheadLog::Record>> WriteAheadLog::ReadNext() {
  if (recovered_) return std::nullopt;
  if (replay_ == nullptr) {
    // Which records are pending stands in the base.
    if (found_base_ != base_lsn_) SHARDSTEP_RETURN_IF_ERROR(ReadBase().status());
    LogSegments::Options options;
    options.optimizer = options_.optimizer;
    options.numeric_fingerprint = options_.numeric_fingerprint;
    options.base_lsn = base_lsn_;
    options.pending = pending_;
    replay_ = std::make_unique<LogSegments>(files_, directory_, std::move(options));
    SHARDSTEP_RETURN_IF_ERROR(replay_->Find(std::move(found_segments_)));
  }
  SHARDSTEP_ASSIGN_OR_RETURN(std::optional<Record> record, replay_->Next());
  if (record.has_value()) {
    NoteStaged(record->lsn, record->message);
  } else {
    SHARDSTEP_RETURN_IF_ERROR(FinishRecovery());
  }
  return record;
}

absl::Status WriteAheadLog::FinishRecovery() {
  segments_ = replay_->segments();
  last_ = replay_->last();
  last_lsn_ = std::max(last_.lsn, base_lsn_);
  // What was read counts from now on. Earlier segments were synced before the last was begun.
  if (!segments_.empty()) SHARDSTEP_RETURN_IF_ERROR(files_->SyncFile(segments_.back().path));
  for (const std::string& file : found_staged_) {
    if (staged_.count(file) > 0) continue;
    SHARDSTEP_RETURN_IF_ERROR(files_->RemoveFile(JoinPath(directory_, file)));
  }
  replay_.reset();
  recovered_ = true;
  return RemoveReplaced();
}

absl::StatusOr<Base> WriteAheadLog::ReadStaged(const std::string& file) {
  if (!NumberOf("staged", file).has_value()) {
    return absl::DataLossError(absl::StrCat("\"", file, "\": expected the name of a staged file"));
  }
  return ReadBaseFile(files_, JoinPath(directory_, file), options_.server_rank);
}

// ---- records

absl::StatusOr<uint64_t> WriteAheadLog::Append(const v1::LogRecord& record,
                                               absl::Span<const absl::string_view> payload) {
  SHARDSTEP_RETURN_IF_ERROR(SHARDSTEP_FAILPOINT("log.append"));
  if (writer_ == nullptr || writer_->bytes() > options_.segment_bytes) {
    const absl::Status begun = BeginSegment();
    // On a full disk the old one goes on.
    const bool goes_on = writer_ != nullptr && absl::IsResourceExhausted(begun);
    if (!begun.ok() && !goes_on) return begun;
  }
  SHARDSTEP_RETURN_IF_ERROR(writer_->Append(record, payload, kSpareBytes));
  last_ = writer_->last();
  last_lsn_ = last_.lsn;
  segments_.back().bytes = writer_->bytes();
  NoteStaged(last_lsn_, record);
  SHARDSTEP_PASS("log.appended");
  return last_lsn_;
}

absl::Status WriteAheadLog::BeginSegment() {
  while (!recovered_) SHARDSTEP_RETURN_IF_ERROR(ReadNext().status());
  // A segment stands for all that is before it.
  SHARDSTEP_RETURN_IF_ERROR(Sync());
  LogSegments::Segment segment;
  segment.first_lsn = last_lsn_ + 1;
  segment.path = JoinPath(directory_, NumberedName("log", segment.first_lsn));
  segment.start.set_optimizer(options_.optimizer);
  segment.start.set_numeric_fingerprint(options_.numeric_fingerprint);
  segment.start.set_previous_lsn(last_.lsn);
  segment.start.set_previous_crc32c(last_.crc32c);
  auto writer = MakeSegment(segment.path, segment.start);
  if (!writer.ok()) {
    // Were it found again, what the old segment gets from here on would not count.
    const absl::Status removed = RemoveDurably(segment.path);
    return removed.ok() ? writer.status() : absl::DataLossError(removed.message());
  }
  writer_ = *std::move(writer);
  last_ = writer_->last();
  last_lsn_ = last_.lsn;
  segments_.push_back(std::move(segment));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<RecordWriter>> WriteAheadLog::MakeSegment(
    const std::string& path, const v1::SegmentStart& start) {
  SHARDSTEP_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, files_->CreateFile(path));
  auto writer =
      std::make_unique<RecordWriter>(std::move(file), ChainPosition{last_lsn_, last_.crc32c});
  v1::LogRecord record;
  *record.mutable_segment() = start;
  SHARDSTEP_RETURN_IF_ERROR(writer->Append(record, {}, kSpareBytes));
  SHARDSTEP_RETURN_IF_ERROR(SHARDSTEP_FAILPOINT("log.segment_created"));
  SHARDSTEP_RETURN_IF_ERROR(SyncNames(files_, directory_));
  return writer;
}

absl::Status WriteAheadLog::RemoveDurably(const std::string& path) {
  SHARDSTEP_ASSIGN_OR_RETURN(const bool exists, files_->Exists(path));
  if (!exists) return absl::OkStatus();
  SHARDSTEP_RETURN_IF_ERROR(files_->RemoveFile(path));
  return SyncNames(files_, directory_);
}

absl::Status WriteAheadLog::Sync() {
  if (writer_ == nullptr) return absl::OkStatus();
  absl::Status synced = SHARDSTEP_FAILPOINT("log.sync");
  if (synced.ok() && !SHARDSTEP_BUG("skip_sync")) synced = writer_->Sync();
  // Whatever the disk says, a full one included: what it kept is unknown.
  if (!synced.ok()) return absl::DataLossError(synced.message());
  SHARDSTEP_PASS("log.synced");
  return absl::OkStatus();
}

// ---- bases and staged files

absl::Status WriteAheadLog::WriteNamed(const std::string& name, const v1::BaseHeader& header,
                                       const LocalState& state) {
  const std::string path = JoinPath(directory_, name);
  const std::string temporary = absl::StrCat(path, ".tmp");
  const auto write = [&]() -> absl::Status {
    SHARDSTEP_RETURN_IF_ERROR(SHARDSTEP_FAILPOINT("base.write"));
    SHARDSTEP_RETURN_IF_ERROR(WriteBaseFile(files_, temporary, header, state));
    SHARDSTEP_RETURN_IF_ERROR(SHARDSTEP_FAILPOINT("base.written"));
    SHARDSTEP_RETURN_IF_ERROR(files_->Rename(temporary, path));
    SHARDSTEP_RETURN_IF_ERROR(SHARDSTEP_FAILPOINT("base.renamed"));
    return SyncNames(files_, directory_);
  };
  const absl::Status written = write();
  if (!written.ok()) files_->RemoveFile(temporary).IgnoreError();
  return written;
}

absl::Status WriteAheadLog::WriteBase(const v1::BaseHeader& header, const LocalState& state) {
  return WriteNamed(NumberedName("base", header.lsn()), header, state);
}

absl::StatusOr<std::string> WriteAheadLog::WriteStaged(const v1::BaseHeader& header,
                                                       const LocalState& state) {
  const std::string file = NumberedName("staged", next_staged_++);
  const absl::Status written = WriteNamed(file, header, state);
  if (!written.ok()) {
    files_->RemoveFile(JoinPath(directory_, file)).IgnoreError();
    return written;
  }
  SHARDSTEP_PASS("staged.written");
  return file;
}

void WriteAheadLog::NoteStaged(uint64_t lsn, const v1::LogRecord& record) {
  const std::string& file = record.prepare().staged_file();
  if (file.empty()) return;
  // A name is not given again while a record has it.
  const uint64_t number = NumberOf("staged", file).value_or(0);
  if (number >= next_staged_) next_staged_ = number + 1;
  // Absent where the change was aborted and this is a replay.
  const auto opened = files_->OpenFile(JoinPath(directory_, file));
  staged_[file] = {lsn, opened.ok() ? (*opened)->Size().value_or(0) : 0};
}

absl::Status WriteAheadLog::RemoveStaged(const std::string& file) {
  SHARDSTEP_RETURN_IF_ERROR(Sync());
  staged_.erase(file);
  const absl::Status removed = files_->RemoveFile(JoinPath(directory_, file));
  return absl::IsNotFound(removed) ? absl::OkStatus() : removed;
}

absl::Status WriteAheadLog::Truncate(const v1::BaseHeader& base) {
  SHARDSTEP_RETURN_IF_ERROR(SHARDSTEP_FAILPOINT("log.truncate"));
  base_lsn_ = base.lsn();
  pending_ = {base.pending_lsns().begin(), base.pending_lsns().end()};
  SHARDSTEP_RETURN_IF_ERROR(RemoveReplaced());
  SHARDSTEP_PASS("log.truncated");
  return absl::OkStatus();
}

absl::Status WriteAheadLog::RemoveReplaced() {
  const uint64_t first_needed =
      pending_.empty() ? base_lsn_ + 1 : std::min(base_lsn_ + 1, *pending_.begin());
  while (segments_.size() > 1 && segments_[1].first_lsn <= first_needed) {
    segments_.erase(segments_.begin());
  }
  for (auto staged = staged_.begin(); staged != staged_.end();) {
    const uint64_t lsn = staged->second.lsn;
    if (lsn > base_lsn_ || pending_.count(lsn) > 0) {
      ++staged;
      continue;
    }
    const absl::Status removed = files_->RemoveFile(JoinPath(directory_, staged->first));
    if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
    staged = staged_.erase(staged);
  }
  SHARDSTEP_ASSIGN_OR_RETURN(const auto entries, files_->List(directory_));
  for (const DirectoryEntry& entry : entries) {
    const auto base = NumberOf("base", entry.name);
    const auto segment = NumberOf("log", entry.name);
    const bool replaced =
        (base.has_value() && *base < base_lsn_) ||
        (segment.has_value() && !segments_.empty() && *segment < segments_.front().first_lsn);
    if (replaced) SHARDSTEP_RETURN_IF_ERROR(files_->RemoveFile(JoinPath(directory_, entry.name)));
  }
  return absl::OkStatus();
}

absl::Status WriteAheadLog::Destroy() {
  SHARDSTEP_RETURN_IF_ERROR(SHARDSTEP_FAILPOINT("log.destroy"));
  writer_.reset();
  replay_.reset();
  recovered_ = true;
  // No optimizer's name begins with a dot: what a death leaves of this is no log.
  const size_t slash = directory_.rfind('/');
  const std::string parent = directory_.substr(0, slash);
  const std::string removed = JoinPath(parent, absl::StrCat(".", directory_.substr(slash + 1)));
  SHARDSTEP_RETURN_IF_ERROR(RemoveTree(files_, removed));
  SHARDSTEP_RETURN_IF_ERROR(files_->Rename(directory_, removed));
  SHARDSTEP_RETURN_IF_ERROR(SyncNames(files_, parent));
  return RemoveTree(files_, removed);
}

int64_t WriteAheadLog::bytes_behind_base() const {
  int64_t bytes = 0;
  for (const LogSegments::Segment& segment : segments_) bytes += segment.bytes;
  for (const auto& [file, staged] : staged_) bytes += staged.bytes;
  return bytes;
}

}  // namespace shardstep
