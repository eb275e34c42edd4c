#include "shardstep/checkpoint/safetensors_file.h"

#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

absl::Status CheckRange(const std::string& path, const std::vector<SafetensorsEntry>& entries,
                        size_t entry, int64_t offset, int64_t size) {
  if (entry >= entries.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", path, "\": tensor ", entry, ", it has ", entries.size()));
  }
  const int64_t bytes = entries[entry].end - entries[entry].begin;
  if (offset >= 0 && size >= 0 && offset <= bytes && size <= bytes - offset) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("\"", path, "\": tensor \"", entries[entry].name,
                                                 "\": ", size, " bytes from ", offset, ", it has ",
                                                 bytes));
}

std::string Folder(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

absl::StatusOr<SafetensorsReader> SafetensorsReader::Open(FileSystem* files,
                                                          const std::string& path) {
  SHARDSTEP_ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file, files->OpenFile(path));
  SHARDSTEP_ASSIGN_OR_RETURN(SafetensorsHeader header, ReadSafetensorsHeader(*file));
  return SafetensorsReader(std::move(file), std::move(header));
}

absl::Status SafetensorsReader::Read(size_t entry, int64_t offset, char* out, int64_t size) const {
  SHARDSTEP_RETURN_IF_ERROR(CheckRange(path(), entries(), entry, offset, size));
  const int64_t begin = header_.data_begin + entries()[entry].begin + offset;
  SHARDSTEP_ASSIGN_OR_RETURN(const size_t got, file_->ReadAt(begin, out, size));
  if (static_cast<int64_t>(got) == size) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("\"", path(), "\": ends at byte ",
                                          begin + static_cast<int64_t>(got),
                                          ", it was longer when it was opened"));
}

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    FileSystem* files, const std::string& path, std::vector<SafetensorsEntry> entries,
    const std::map<std::string, std::string>& metadata) {
  SHARDSTEP_ASSIGN_OR_RETURN(const std::string header,
                             LayoutSafetensors(absl::MakeSpan(entries), metadata));
  const std::string temporary = absl::StrCat(path, ".", getpid(), ".tmp");
  // Left by a process of the same number that was killed.
  SHARDSTEP_ASSIGN_OR_RETURN(const bool left, files->Exists(temporary));
  if (left) SHARDSTEP_RETURN_IF_ERROR(files->RemoveFile(temporary));
  SHARDSTEP_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, files->CreateFile(temporary));
  std::unique_ptr<SafetensorsWriter> writer(
      new SafetensorsWriter(files, path, temporary, std::move(entries),
                            static_cast<int64_t>(header.size()), std::move(file)));
  const int64_t data_bytes = writer->entries_.empty() ? 0 : writer->entries_.back().end;
  SHARDSTEP_RETURN_IF_ERROR(writer->file_->Reserve(writer->data_begin_ + data_bytes));
  SHARDSTEP_RETURN_IF_ERROR(writer->file_->WriteAt(0, header));
  return writer;
}

SafetensorsWriter::SafetensorsWriter(FileSystem* files, std::string path, std::string temporary,
                                     std::vector<SafetensorsEntry> entries, int64_t data_begin,
                                     std::unique_ptr<WritableFile> file)
    : files_(files),
      path_(std::move(path)),
      temporary_(std::move(temporary)),
      entries_(std::move(entries)),
      data_begin_(data_begin),
      file_(std::move(file)) {}

SafetensorsWriter::~SafetensorsWriter() {
  if (file_ == nullptr) return;
  file_.reset();
  // Nobody is there to be told.
  files_->RemoveFile(temporary_).IgnoreError();
}

absl::Status SafetensorsWriter::WriteAt(size_t entry, int64_t offset, absl::string_view bytes) {
  const int64_t size = static_cast<int64_t>(bytes.size());
  SHARDSTEP_RETURN_IF_ERROR(CheckRange(path_, entries_, entry, offset, size));
  SHARDSTEP_RETURN_IF_ERROR(file_->WriteAt(data_begin_ + entries_[entry].begin + offset, bytes));
  written_ += size;
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Commit() {
  const int64_t bytes = entries_.empty() ? 0 : entries_.back().end;
  if (written_ != bytes) {
    return absl::FailedPreconditionError(absl::StrCat("\"", path_, "\": ", written_.load(),
                                                      " bytes were written, expected ", bytes));
  }
  SHARDSTEP_RETURN_IF_ERROR(file_->Sync());
  SHARDSTEP_RETURN_IF_ERROR(file_->Close());
  SHARDSTEP_RETURN_IF_ERROR(files_->Rename(temporary_, path_));
  file_.reset();
  return files_->SyncDirectory(Folder(path_));
}

}  // namespace shardstep
