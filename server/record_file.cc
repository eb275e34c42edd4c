#include "shardstep/server/record_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/crc32c.h"

namespace shardstep {
namespace {

// Where the fields of a record begin.
constexpr int kCrc = 0;
constexpr int kMessageBytes = 4;
constexpr int kPayloadBytes = 8;
constexpr int kLsn = 16;
constexpr int kPreviousCrc = 24;
constexpr int64_t kHeaderBytes = 28;

// A payload is checked and copied in pieces that stay in the cache in between.
constexpr size_t kPiece = 256 << 10;

using Header = std::array<char, kHeaderBytes>;

template <typename T>
void Put(Header* header, int at, T value) {
  std::memcpy(header->data() + at, &value, sizeof(value));
}

template <typename T>
T Get(const Header& header, int at) {
  T value;
  std::memcpy(&value, header.data() + at, sizeof(value));
  return value;
}

uint32_t CrcOfHeader(const Header& header) {
  return Crc32c({header.data() + kMessageBytes, kHeaderBytes - kMessageBytes});
}

}  // namespace

RecordWriter::RecordWriter(std::unique_ptr<WritableFile> file, ChainPosition after)
    : file_(std::move(file)), last_(after) {}

absl::Status RecordWriter::Reserve(int64_t bytes) {
  if (bytes <= reserved_) return absl::OkStatus();
  SHARDSTEP_RETURN_IF_ERROR(file_->Reserve(bytes));
  reserved_ = bytes;
  return absl::OkStatus();
}

absl::Status RecordWriter::Append(const v1::LogRecord& record,
                                  absl::Span<const absl::string_view> payload, int64_t spare) {
  std::string message;
  if (!record.SerializeToString(&message)) {
    return absl::InvalidArgumentError(
        absl::StrCat("record ", last_.lsn + 1, ": its message cannot be serialized"));
  }
  uint64_t payload_bytes = 0;
  for (const absl::string_view part : payload) payload_bytes += part.size();
  Header header;
  Put<uint32_t>(&header, kMessageBytes, message.size());
  Put<uint64_t>(&header, kPayloadBytes, payload_bytes);
  Put<uint64_t>(&header, kLsn, last_.lsn + 1);
  Put<uint32_t>(&header, kPreviousCrc, last_.crc32c);

  const int64_t end = bytes_ + kHeaderBytes + static_cast<int64_t>(message.size() + payload_bytes);
  const absl::Status reserved = Reserve(end + spare);
  const bool fits = payload_bytes == 0 && end <= reserved_ && absl::IsResourceExhausted(reserved);
  if (!reserved.ok() && !fits) return reserved;

  int64_t offset = bytes_ + kHeaderBytes;
  SHARDSTEP_RETURN_IF_ERROR(file_->WriteAt(offset, message));
  offset += static_cast<int64_t>(message.size());
  uint32_t crc = ExtendCrc32c(CrcOfHeader(header), message);
  for (const absl::string_view part : payload) {
    for (size_t done = 0; done < part.size(); done += kPiece) {
      const absl::string_view piece = part.substr(done, kPiece);
      crc = ExtendCrc32c(crc, piece);
      SHARDSTEP_RETURN_IF_ERROR(file_->WriteAt(offset, piece));
      offset += static_cast<int64_t>(piece.size());
    }
  }
  Put<uint32_t>(&header, kCrc, crc);
  // Last, so that a record that was refused is never found whole.
  SHARDSTEP_RETURN_IF_ERROR(file_->WriteAt(bytes_, {header.data(), header.size()}));
  bytes_ = end;
  reserved_ = std::max(reserved_, end);
  last_ = {last_.lsn + 1, crc};
  return absl::OkStatus();
}

RecordReader::RecordReader(std::unique_ptr<ReadableFile> file) : file_(std::move(file)) {}

absl::StatusOr<std::optional<RecordReader::Record>> RecordReader::Next() {
  return Next([](const Record&) { return std::vector<absl::Span<char>>(); });
}

absl::StatusOr<std::optional<RecordReader::Record>> RecordReader::Next(Place place) {
  SHARDSTEP_ASSIGN_OR_RETURN(const int64_t size, file_->Size());
  Header header = {};
  SHARDSTEP_ASSIGN_OR_RETURN(const size_t got,
                             file_->ReadAt(offset_, header.data(), header.size()));
  torn_ = header != Header{};
  Record record;
  record.position = {Get<uint64_t>(header, kLsn), Get<uint32_t>(header, kCrc)};
  record.previous_crc32c = Get<uint32_t>(header, kPreviousCrc);
  record.payload_bytes = Get<uint64_t>(header, kPayloadBytes);
  const uint32_t message_bytes = Get<uint32_t>(header, kMessageBytes);
  const uint64_t left = std::max<int64_t>(0, size - offset_ - kHeaderBytes);
  if (got < header.size() || message_bytes == 0 || message_bytes > left ||
      record.payload_bytes > left - message_bytes) {
    return std::nullopt;
  }
  if (last_.has_value() &&
      (record.position.lsn != last_->lsn + 1 || record.previous_crc32c != last_->crc32c)) {
    return std::nullopt;
  }
  std::string message(message_bytes, '\0');
  int64_t offset = offset_ + kHeaderBytes;
  SHARDSTEP_ASSIGN_OR_RETURN(const size_t message_got,
                             file_->ReadAt(offset, message.data(), message.size()));
  if (message_got < message.size() || !record.message.ParseFromString(message)) {
    return std::nullopt;
  }
  offset += message_bytes;
  uint32_t crc = ExtendCrc32c(CrcOfHeader(header), message);
  std::vector<absl::Span<char>> parts = place(record);
  uint64_t placed = 0;
  for (const absl::Span<char> part : parts) placed += part.size();
  std::string scratch;
  if (placed != record.payload_bytes) {
    scratch.resize(std::min<uint64_t>(record.payload_bytes, kPiece));
    parts.clear();
    for (uint64_t done = 0; done < record.payload_bytes; done += parts.back().size()) {
      parts.push_back(absl::MakeSpan(scratch).first(
          std::min<uint64_t>(record.payload_bytes - done, scratch.size())));
    }
  }
  for (const absl::Span<char> part : parts) {
    SHARDSTEP_RETURN_IF_ERROR(Read(part, &offset, &crc));
  }
  if (crc != record.position.crc32c) return std::nullopt;
  torn_ = false;
  offset_ = offset;
  last_ = record.position;
  return record;
}

absl::Status RecordReader::Read(absl::Span<char> out, int64_t* offset, uint32_t* crc) const {
  for (size_t done = 0; done < out.size(); done += kPiece) {
    const absl::Span<char> piece = out.subspan(done, kPiece);
    SHARDSTEP_ASSIGN_OR_RETURN(const size_t got,
                               file_->ReadAt(*offset, piece.data(), piece.size()));
    if (got < piece.size()) {
      return absl::DataLossError(
          absl::StrCat("\"", path(), "\": became shorter while it was read"));
    }
    *crc = ExtendCrc32c(*crc, {piece.data(), piece.size()});
    *offset += static_cast<int64_t>(piece.size());
  }
  return absl::OkStatus();
}

}  // namespace shardstep
