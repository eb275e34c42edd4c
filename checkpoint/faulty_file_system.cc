#include "shardstep/checkpoint/faulty_file_system.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

class FaultyWritableFile : public WritableFile {
 public:
  FaultyWritableFile(FaultyFileSystem* owner, std::unique_ptr<WritableFile> base)
      : owner_(owner), base_(std::move(base)) {}

  absl::Status Reserve(int64_t bytes) override {
    SHARDSTEP_RETURN_IF_ERROR(owner_->BeforeChange("reserve"));
    return base_->Reserve(bytes);
  }

  absl::Status Append(absl::string_view data) override {
    size_t bytes = data.size();
    const absl::Status allowed = owner_->BeforeChange("write", &bytes);
    if (allowed.ok() || bytes > 0) {
      SHARDSTEP_RETURN_IF_ERROR(base_->Append(data.substr(0, bytes)));
    }
    return allowed;
  }

  absl::Status WriteAt(int64_t offset, absl::string_view data) override {
    size_t bytes = data.size();
    const absl::Status allowed = owner_->BeforeChange("write", &bytes);
    if (allowed.ok() || bytes > 0) {
      SHARDSTEP_RETURN_IF_ERROR(base_->WriteAt(offset, data.substr(0, bytes)));
    }
    return allowed;
  }

  absl::Status Sync() override {
    SHARDSTEP_RETURN_IF_ERROR(owner_->BeforeChange("sync"));
    return base_->Sync();
  }

  absl::Status Close() override {
    SHARDSTEP_RETURN_IF_ERROR(owner_->BeforeChange("close"));
    return base_->Close();
  }

 private:
  FaultyFileSystem* const owner_;
  const std::unique_ptr<WritableFile> base_;
};

class WatchedReadableFile : public ReadableFile {
 public:
  WatchedReadableFile(FaultyFileSystem* owner, std::unique_ptr<ReadableFile> base)
      : owner_(owner), base_(std::move(base)) {}

  absl::StatusOr<size_t> ReadAt(int64_t offset, char* out, size_t size) const override {
    SHARDSTEP_RETURN_IF_ERROR(owner_->BeforeRead("read"));
    owner_->reads().push_back({path(), offset, size});
    return base_->ReadAt(offset, out, size);
  }
  absl::StatusOr<int64_t> Size() const override { return base_->Size(); }
  const std::string& path() const override { return base_->path(); }

 private:
  FaultyFileSystem* const owner_;
  const std::unique_ptr<ReadableFile> base_;
};

}  // namespace

void FaultyFileSystem::FailAt(int64_t at, Fault fault) {
  fail_at_ = at;
  fault_ = fault;
  mutations_ = 0;
  struck_ = false;
}

absl::Status FaultyFileSystem::BeforeRead(const std::string& what) const {
  if (struck_ && fault_ == Fault::kCrash) {
    return absl::AbortedError(absl::StrCat(what, ": after the crash"));
  }
  return absl::OkStatus();
}

absl::Status FaultyFileSystem::BeforeChange(const std::string& what, size_t* write_bytes) {
  absl::Status status = BeforeRead(what);
  if (!status.ok()) {
    if (write_bytes != nullptr) *write_bytes = 0;
    return status;
  }
  if (mutations_++ != fail_at_) return absl::OkStatus();
  struck_ = true;
  if (write_bytes != nullptr) *write_bytes = fault_ == Fault::kError ? 0 : *write_bytes / 2;
  return absl::ResourceExhaustedError(absl::StrCat(what, ": fault ", fail_at_));
}

absl::Status FaultyFileSystem::CreateDirectories(const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(BeforeChange("mkdir"));
  return base_->CreateDirectories(path);
}

absl::StatusOr<std::unique_ptr<WritableFile>> FaultyFileSystem::CreateFile(
    const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(BeforeChange("create"));
  SHARDSTEP_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, base_->CreateFile(path));
  return std::make_unique<FaultyWritableFile>(this, std::move(file));
}

absl::StatusOr<std::unique_ptr<ReadableFile>> FaultyFileSystem::OpenFile(const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(BeforeRead("open"));
  SHARDSTEP_ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file, base_->OpenFile(path));
  return std::make_unique<WatchedReadableFile>(this, std::move(file));
}

absl::Status FaultyFileSystem::SyncFile(const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(BeforeChange("sync"));
  return base_->SyncFile(path);
}

absl::Status FaultyFileSystem::Rename(const std::string& from, const std::string& to) {
  SHARDSTEP_RETURN_IF_ERROR(BeforeChange("rename"));
  return base_->Rename(from, to);
}

absl::Status FaultyFileSystem::SyncDirectory(const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(BeforeChange("sync directory"));
  return base_->SyncDirectory(path);
}

absl::StatusOr<std::vector<DirectoryEntry>> FaultyFileSystem::List(const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(BeforeRead("list"));
  return base_->List(path);
}

absl::StatusOr<bool> FaultyFileSystem::Exists(const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(BeforeRead("stat"));
  return base_->Exists(path);
}

absl::Status FaultyFileSystem::RemoveFile(const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(BeforeChange("unlink"));
  return base_->RemoveFile(path);
}

absl::Status FaultyFileSystem::RemoveDirectory(const std::string& path) {
  SHARDSTEP_RETURN_IF_ERROR(BeforeChange("rmdir"));
  return base_->RemoveDirectory(path);
}

}  // namespace shardstep
