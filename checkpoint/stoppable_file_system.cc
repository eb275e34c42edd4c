#include "shardstep/checkpoint/stoppable_file_system.h"

#include <utility>

#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

class StoppableWritableFile final : public WritableFile {
 public:
  StoppableWritableFile(const StoppableFileSystem* files, std::unique_ptr<WritableFile> file)
      : files_(files), file_(std::move(file)) {}

  absl::Status Reserve(int64_t bytes) override {
    SHARDSTEP_RETURN_IF_ERROR(files_->Check());
    return file_->Reserve(bytes);
  }
  absl::Status Append(absl::string_view data) override {
    SHARDSTEP_RETURN_IF_ERROR(files_->Check());
    return file_->Append(data);
  }
  absl::Status WriteAt(int64_t offset, absl::string_view data) override {
    SHARDSTEP_RETURN_IF_ERROR(files_->Check());
    return file_->WriteAt(offset, data);
  }
  absl::Status Sync() override {
    SHARDSTEP_RETURN_IF_ERROR(files_->Check());
    return file_->Sync();
  }
  absl::Status Close() override { return file_->Close(); }

 private:
  const StoppableFileSystem* const files_;
  const std::unique_ptr<WritableFile> file_;
};

class StoppableReadableFile final : public ReadableFile {
 public:
  StoppableReadableFile(const StoppableFileSystem* files, std::unique_ptr<ReadableFile> file)
      : files_(files), file_(std::move(file)) {}

  absl::StatusOr<size_t> ReadAt(int64_t offset, char* out, size_t size) const override {
    SHARDSTEP_RETURN_IF_ERROR(files_->Check());
    return file_->ReadAt(offset, out, size);
  }
  absl::StatusOr<int64_t> Size() const override { return file_->Size(); }
  const std::string& path() const override { return file_->path(); }

 private:
  const StoppableFileSystem* const files_;
  const std::unique_ptr<ReadableFile> file_;
};

}  // namespace

absl::Status StoppableFileSystem::Check() const {
  if (!stopped_.load(std::memory_order_relaxed)) return absl::OkStatus();
  return absl::UnavailableError("the process is shutting down");
}

absl::Status StoppableFileSystem::CreateDirectories(const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(Check());
  return files_->CreateDirectories(path);
}

absl::StatusOr<std::unique_ptr<WritableFile>> StoppableFileSystem::CreateFile(
    const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(Check());
  SHARDSTEP_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, files_->CreateFile(path));
  return std::make_unique<StoppableWritableFile>(this, std::move(file));
}

absl::StatusOr<std::unique_ptr<ReadableFile>> StoppableFileSystem::OpenFile(
    const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(Check());
  SHARDSTEP_ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file, files_->OpenFile(path));
  return std::make_unique<StoppableReadableFile>(this, std::move(file));
}

absl::Status StoppableFileSystem::SyncFile(const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(Check());
  return files_->SyncFile(path);
}

absl::Status StoppableFileSystem::Rename(const std::string& from, const std::string& to) {
  SHARDSTEP_RETURN_IF_ERROR(Check());
  return files_->Rename(from, to);
}

absl::Status StoppableFileSystem::SyncDirectory(const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(Check());
  return files_->SyncDirectory(path);
}

absl::StatusOr<std::vector<DirectoryEntry>> StoppableFileSystem::List(const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(Check());
  return files_->List(path);
}

absl::StatusOr<bool> StoppableFileSystem::Exists(const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(Check());
  return files_->Exists(path);
}

absl::Status StoppableFileSystem::RemoveFile(const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(Check());
  return files_->RemoveFile(path);
}

absl::Status StoppableFileSystem::RemoveDirectory(const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(Check());
  return files_->RemoveDirectory(path);
}

}  // namespace shardstep
