#include "shardstep/checkpoint/file_system.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {

absl::Status RemoveTree(FileSystem* files, const std::string& path) {
  absl::StatusOr<std::vector<DirectoryEntry>> entries = files->List(path);
  if (absl::IsNotFound(entries.status())) return absl::OkStatus();
  SHARDSTEP_RETURN_IF_ERROR(entries.status());
  for (const DirectoryEntry& entry : *entries) {
    const std::string child = JoinPath(path, entry.name);
    SHARDSTEP_RETURN_IF_ERROR(entry.is_directory ? RemoveTree(files, child)
                                                 : files->RemoveFile(child));
  }
  return files->RemoveDirectory(path);
}

absl::StatusOr<std::string> ReadWholeFile(FileSystem* files, const std::string& path,
                                          int64_t max_bytes) {
  SHARDSTEP_ASSIGN_OR_RETURN(const std::unique_ptr<ReadableFile> file, files->OpenFile(path));
  SHARDSTEP_ASSIGN_OR_RETURN(const int64_t size, file->Size());
  if (size > max_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("\"", path, "\": has ", size, " bytes, expected at most ", max_bytes));
  }
  std::string content(size, '\0');
  SHARDSTEP_ASSIGN_OR_RETURN(const size_t got, file->ReadAt(0, content.data(), content.size()));
  content.resize(got);
  return content;
}

absl::Status WriteWholeFile(FileSystem* files, const std::string& path, absl::string_view content) {
  SHARDSTEP_ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file, files->CreateFile(path));
  SHARDSTEP_RETURN_IF_ERROR(file->Append(content));
  SHARDSTEP_RETURN_IF_ERROR(file->Sync());
  return file->Close();
}

std::string JoinPath(absl::string_view folder, absl::string_view name) {
  return absl::StrCat(folder, absl::EndsWith(folder, "/") || folder.empty() ? "" : "/", name);
}

}  // namespace shardstep
