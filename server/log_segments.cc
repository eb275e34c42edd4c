#include "shardstep/server/log_segments.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "shardstep/server/device.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

constexpr size_t kDigits = 20;

absl::Status Broken(const std::string& path, int64_t offset, absl::string_view why) {
  return absl::DataLossError(absl::StrCat("\"", path, "\": byte ", offset, ": ", why));
}

// Memory for the gradients of a record; none if their sizes together are not `bytes`.
absl::StatusOr<std::vector<at::Tensor>> Allocate(const v1::LoggedPrepare& prepare, uint64_t bytes) {
  uint64_t left = bytes;
  for (const auto& gradient : prepare.gradients()) {
    if (gradient.bytes() > left) return std::vector<at::Tensor>();
    left -= gradient.bytes();
  }
  std::vector<at::Tensor> memory;
  if (left > 0) return memory;
  for (const auto& gradient : prepare.gradients()) {
    SHARDSTEP_ASSIGN_OR_RETURN(at::Tensor tensor,
                               AllocateBytes(static_cast<int64_t>(gradient.bytes())));
    memory.push_back(std::move(tensor));
  }
  return memory;
}

}  // namespace

std::string NumberedName(absl::string_view kind, uint64_t number) {
  return absl::StrFormat("%s-%0*d", kind, static_cast<int>(kDigits), number);
}

std::optional<uint64_t> NumberOf(absl::string_view kind, absl::string_view name) {
  uint64_t number = 0;
  if (!absl::ConsumePrefix(&name, absl::StrCat(kind, "-")) || name.size() != kDigits ||
      !absl::SimpleAtoi(name, &number)) {
    return std::nullopt;
  }
  return number;
}

absl::Status CheckFingerprint(const std::string& path, uint32_t written, uint32_t own) {
  if (written == own) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrFormat("\"%s\": was written with numeric fingerprint %08x, this server has %08x and "
                      "would compute other bits; start it on a machine like the one before, and "
                      "servers that move with --numerics=portable from the beginning",
                      path, written, own));
}

LogSegments::LogSegments(FileSystem* files, std::string directory, Options options)
    : files_(files), directory_(std::move(directory)), options_(std::move(options)) {}

uint64_t LogSegments::FirstNeeded() const {
  const uint64_t behind = options_.base_lsn + 1;
  return options_.pending.empty() ? behind : std::min(behind, *options_.pending.begin());
}

absl::StatusOr<std::optional<v1::SegmentStart>> LogSegments::ReadStart(
    uint64_t first_lsn, const std::string& path) const {
  SHARDSTEP_ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file, files_->OpenFile(path));
  RecordReader reader(std::move(file));
  SHARDSTEP_ASSIGN_OR_RETURN(auto record, reader.Next());
  if (!record.has_value()) return std::nullopt;
  const v1::SegmentStart& start = record->message.segment();
  if (!record->message.has_segment() || record->position.lsn != first_lsn ||
      start.optimizer() != options_.optimizer) {
    return Broken(path, 0,
                  absl::StrCat("expected the start of a segment of optimizer \"",
                               options_.optimizer, "\" with record ", first_lsn));
  }
  return start;
}

absl::Status LogSegments::Find(std::vector<uint64_t> found) {
  while (!found.empty()) {
    const std::string path = JoinPath(directory_, NumberedName("log", found.back()));
    SHARDSTEP_ASSIGN_OR_RETURN(const auto start, ReadStart(found.back(), path));
    if (start.has_value()) break;
    SHARDSTEP_RETURN_IF_ERROR(files_->RemoveFile(path));
    found.pop_back();
  }
  const uint64_t needed = FirstNeeded();
  auto first = std::upper_bound(found.begin(), found.end(), needed);
  if (first != found.begin()) --first;
  for (; first != found.end(); ++first) {
    Segment segment;
    segment.first_lsn = *first;
    segment.path = JoinPath(directory_, NumberedName("log", *first));
    SHARDSTEP_ASSIGN_OR_RETURN(auto start, ReadStart(*first, segment.path));
    if (!start.has_value()) return Broken(segment.path, 0, "expected the start of a segment");
    segment.start = *std::move(start);
    const uint64_t previous = segment.start.previous_lsn();
    if (segments_.empty() && previous >= needed) {
      return Broken(segment.path, 0,
                    absl::StrCat("follows record ", previous, ", and record ", needed,
                                 " is in no earlier segment"));
    }
    if (!segments_.empty() && previous < segments_.back().first_lsn) {
      return Broken(segment.path, 0,
                    absl::StrCat("follows record ", previous, ", expected one of \"",
                                 segments_.back().path, "\""));
    }
    segments_.push_back(std::move(segment));
  }
  if (!segments_.empty()) {
    const v1::SegmentStart& start = segments_.front().start;
    last_ = {start.previous_lsn(), start.previous_crc32c()};
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<LogSegments::Record>> LogSegments::Next() {
  while (reading_ < segments_.size()) {
    Segment& segment = segments_[reading_];
    if (reader_ == nullptr) {
      SHARDSTEP_ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file,
                                 files_->OpenFile(segment.path));
      reader_ = std::make_unique<RecordReader>(std::move(file));
    }
    SHARDSTEP_ASSIGN_OR_RETURN(auto record, ReadRecord());
    if (record.has_value()) {
      if (record->message.has_segment() || !Needed(record->lsn)) continue;
      SHARDSTEP_RETURN_IF_ERROR(CheckFingerprint(segment.path, segment.start.numeric_fingerprint(),
                                                 options_.numeric_fingerprint));
      return record;
    }
    if (reading_ + 1 < segments_.size()) {
      const v1::SegmentStart& next = segments_[reading_ + 1].start;
      if (last_.lsn != next.previous_lsn() || last_.crc32c != next.previous_crc32c()) {
        return Broken(segment.path, reader_->offset(),
                      absl::StrCat("record ", last_.lsn + 1,
                                   " is missing or broken; the next "
                                   "segment follows record ",
                                   next.previous_lsn()));
      }
    }
    segment.bytes = reader_->offset();
    reader_.reset();
    ++reading_;
  }
  return std::nullopt;
}

absl::StatusOr<std::optional<LogSegments::Record>> LogSegments::ReadRecord() {
  Record record;
  const int64_t offset = reader_->offset();
  absl::Status allocated;
  SHARDSTEP_ASSIGN_OR_RETURN(auto read, reader_->Next([&](const RecordReader::Record& read) {
    std::vector<absl::Span<char>> parts;
    if (!Needed(read.position.lsn)) return parts;
    absl::StatusOr<std::vector<at::Tensor>> memory =
        Allocate(read.message.prepare(), read.payload_bytes);
    allocated = memory.status();
    if (!memory.ok()) return parts;
    record.payload = *std::move(memory);
    for (const at::Tensor& tensor : record.payload) {
      parts.emplace_back(static_cast<char*>(tensor.data_ptr()), tensor.nbytes());
    }
    return parts;
  }));
  SHARDSTEP_RETURN_IF_ERROR(allocated);
  if (!read.has_value()) return std::nullopt;
  last_ = read->position;
  record.lsn = last_.lsn;
  record.message = std::move(read->message);
  const bool complete =
      record.payload.size() == static_cast<size_t>(record.message.prepare().gradients_size());
  if (Needed(record.lsn) && (!complete || (record.payload.empty() && read->payload_bytes > 0))) {
    return Broken(
        segments_[reading_].path, offset,
        absl::StrCat("record ", record.lsn, ": its payload has other sizes than it says"));
  }
  return record;
}

}  // namespace shardstep
