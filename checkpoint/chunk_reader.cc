#include "shardstep/checkpoint/chunk_reader.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/crc32c.h"

namespace shardstep {

absl::StatusOr<ChunkReader> ChunkReader::Open(FileSystem* files, const std::string& directory,
                                              const FileRecord& record) {
  const std::string path = JoinPath(directory, record.name);
  absl::StatusOr<std::unique_ptr<ReadableFile>> file = files->OpenFile(path);
  if (absl::IsNotFound(file.status())) {
    return absl::DataLossError(absl::StrCat("\"", path, "\": missing"));
  }
  SHARDSTEP_RETURN_IF_ERROR(file.status());
  SHARDSTEP_ASSIGN_OR_RETURN(const int64_t size, (*file)->Size());
  if (size == record.bytes) return ChunkReader(*std::move(file), &record);
  return absl::DataLossError(
      absl::StrCat("\"", path, "\": ", size, " bytes, expected ", record.bytes));
}

int64_t ChunkReader::Begin(size_t chunk) const {
  return static_cast<int64_t>(chunk) * record_->chunk_bytes;
}

int64_t ChunkReader::End(size_t chunk) const {
  return std::min(Begin(chunk) + record_->chunk_bytes, record_->bytes);
}

absl::Status ChunkReader::Check(size_t chunk, absl::string_view bytes) const {
  const uint32_t crc = Crc32c(bytes);
  const int64_t expected_bytes = End(chunk) - Begin(chunk);
  if (crc == record_->crc32c[chunk] && static_cast<int64_t>(bytes.size()) == expected_bytes) {
    return absl::OkStatus();
  }
  return absl::DataLossError(
      absl::StrCat("\"", file_->path(), "\": bytes ", Begin(chunk), " to ", End(chunk), ": CRC32C ",
                   Crc32cHex(crc), " of ", bytes.size(), " bytes, expected ",
                   Crc32cHex(record_->crc32c[chunk]), " of ", expected_bytes));
}

absl::Status ChunkReader::Read(size_t first, size_t last, std::vector<char>* bytes) const {
  const int64_t begin = Begin(first);
  bytes->resize(last == first ? 0 : End(last - 1) - begin);
  SHARDSTEP_ASSIGN_OR_RETURN(const size_t got, file_->ReadAt(begin, bytes->data(), bytes->size()));
  bytes->resize(got);
  const absl::string_view all(bytes->data(), bytes->size());
  for (size_t chunk = first; chunk < last; ++chunk) {
    const size_t at = std::min<size_t>(Begin(chunk) - begin, all.size());
    SHARDSTEP_RETURN_IF_ERROR(Check(chunk, all.substr(at, End(chunk) - Begin(chunk))));
  }
  return absl::OkStatus();
}

absl::StatusOr<SafetensorsHeader> ChunkReader::ReadHeader() const {
  std::vector<char> bytes;
  const auto view = [&](size_t size) { return absl::string_view(bytes.data(), size); };
  const auto damaged = [&](const absl::Status& status) {
    return absl::DataLossError(absl::StrCat("\"", file_->path(), "\": ", status.message()));
  };
  SHARDSTEP_RETURN_IF_ERROR(Read(0, std::min<size_t>(1, record_->crc32c.size()), &bytes));
  const absl::StatusOr<int64_t> length = ParseSafetensorsLength(view(bytes.size()), record_->bytes);
  if (!length.ok()) return damaged(length.status());
  const int64_t end = kSafetensorsLengthBytes + *length;
  const size_t chunks = (end + record_->chunk_bytes - 1) / record_->chunk_bytes;
  if (chunks > 1) SHARDSTEP_RETURN_IF_ERROR(Read(0, chunks, &bytes));
  absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(view(end), record_->bytes);
  if (!header.ok()) return damaged(header.status());
  return header;
}

}  // namespace shardstep
