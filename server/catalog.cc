#include "shardstep/server/catalog.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "shardstep/server/faults.h"
#include "shardstep/server/sync_names.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

// A file with more was not written by a server.
constexpr int64_t kMaxFileBytes = 1 << 30;

const std::string& NameIn(const v1::CatalogEntry& entry) {
  return entry.description().definition().name();
}
const std::string& NameIn(const v1::FenceEntry& entry) { return entry.optimizer(); }

// Replaces the file `name` of `directory` as a whole and durably.
absl::Status WriteFile(FileSystem* files, const std::string& directory, const std::string& name,
                       const std::string& bytes) {
  const std::string path = JoinPath(directory, name);
  const std::string temporary = absl::StrCat(path, ".tmp");
  // An earlier attempt may have left one.
  SHARDSTEP_ASSIGN_OR_RETURN(const bool exists, files->Exists(temporary));
  if (exists) SHARDSTEP_RETURN_IF_ERROR(files->RemoveFile(temporary));
  SHARDSTEP_RETURN_IF_ERROR(WriteWholeFile(files, temporary, bytes));
  SHARDSTEP_RETURN_IF_ERROR(files->Rename(temporary, path));
  SHARDSTEP_PASS("catalog.renamed");
  return SyncNames(files, directory);
}

absl::StatusOr<std::string> ReadFile(FileSystem* files, const std::string& path) {
  auto bytes = ReadWholeFile(files, path, kMaxFileBytes);
  if (!bytes.ok()) return absl::DataLossError(bytes.status().message());
  return bytes;
}

// The entries of `directory`, by optimizer.
template <typename Entry>
absl::Status ReadEntries(FileSystem* files, const std::string& directory,
                         std::map<std::string, Entry>* entries) {
  SHARDSTEP_RETURN_IF_ERROR(files->CreateDirectories(directory));
  // What is found counts, so it must not be gone at the next start.
  SHARDSTEP_RETURN_IF_ERROR(files->SyncDirectory(directory));
  SHARDSTEP_ASSIGN_OR_RETURN(const auto found, files->List(directory));
  for (const DirectoryEntry& file : found) {
    absl::string_view name = file.name;
    if (!absl::ConsumeSuffix(&name, ".pb")) continue;
    const std::string path = JoinPath(directory, file.name);
    SHARDSTEP_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(files, path));
    Entry entry;
    if (!entry.ParseFromString(bytes) || NameIn(entry) != name) {
      return absl::DataLossError(
          absl::StrCat("\"", path, "\": is not an entry of optimizer \"", name, "\""));
    }
    entries->emplace(name, std::move(entry));
  }
  return absl::OkStatus();
}

}  // namespace

Catalog::Catalog(FileSystem* files, std::string directory)
    : files_(files), directory_(std::move(directory)) {}

absl::StatusOr<std::unique_ptr<Catalog>> Catalog::Open(FileSystem* files,
                                                       const std::string& directory) {
  std::unique_ptr<Catalog> catalog(new Catalog(files, directory));
  SHARDSTEP_RETURN_IF_ERROR(files->CreateDirectories(directory));
  SHARDSTEP_RETURN_IF_ERROR(catalog->TakeIncarnation());
  SHARDSTEP_RETURN_IF_ERROR(ReadEntries(files, JoinPath(directory, "catalog"), &catalog->found_));
  SHARDSTEP_RETURN_IF_ERROR(ReadEntries(files, JoinPath(directory, "fences"), &catalog->fences_));
  SHARDSTEP_RETURN_IF_ERROR(catalog->FindLogs());
  return catalog;
}

absl::Status Catalog::TakeIncarnation() {
  const std::string path = JoinPath(directory_, "incarnation");
  SHARDSTEP_ASSIGN_OR_RETURN(const bool exists, files_->Exists(path));
  uint64_t last = 0;
  if (exists) {
    SHARDSTEP_ASSIGN_OR_RETURN(const std::string text, ReadFile(files_, path));
    if (!absl::SimpleAtoi(text, &last)) {
      return absl::DataLossError(absl::StrCat("\"", path, "\": expected a number"));
    }
  }
  incarnation_ = last + 1;
  return WriteFile(files_, directory_, "incarnation", absl::StrCat(incarnation_, "\n"));
}

absl::Status Catalog::FindLogs() {
  const std::string directory = JoinPath(directory_, "wal");
  SHARDSTEP_RETURN_IF_ERROR(files_->CreateDirectories(directory));
  SHARDSTEP_ASSIGN_OR_RETURN(const auto found, files_->List(directory));
  for (const DirectoryEntry& log : found) {
    // What a death left of a log that was being removed.
    if (absl::StartsWith(log.name, ".")) {
      SHARDSTEP_RETURN_IF_ERROR(RemoveTree(files_, JoinPath(directory, log.name)));
    } else {
      logs_.push_back(log.name);
    }
  }
  return absl::OkStatus();
}

absl::Status Catalog::Write(const std::string& optimizer, const v1::CatalogEntry& entry) {
  SHARDSTEP_RETURN_IF_ERROR(SHARDSTEP_FAILPOINT("catalog.write"));
  return WriteFile(files_, JoinPath(directory_, "catalog"), absl::StrCat(optimizer, ".pb"),
                   entry.SerializeAsString());
}

absl::Status Catalog::WriteFences(const std::string& optimizer, const v1::FenceEntry& entry) {
  SHARDSTEP_RETURN_IF_ERROR(SHARDSTEP_FAILPOINT("fences.write"));
  return WriteFile(files_, JoinPath(directory_, "fences"), absl::StrCat(optimizer, ".pb"),
                   entry.SerializeAsString());
}

absl::Status Catalog::RemoveEntry(absl::string_view folder, absl::string_view optimizer) {
  const absl::Status removed =
      files_->RemoveFile(JoinPath(JoinPath(directory_, folder), absl::StrCat(optimizer, ".pb")));
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  return SyncNames(files_, JoinPath(directory_, folder));
}

absl::Status Catalog::Remove(const std::string& optimizer) {
  SHARDSTEP_RETURN_IF_ERROR(RemoveEntry("catalog", optimizer));
  return RemoveEntry("fences", optimizer);
}

std::string Catalog::LogDirectory(const std::string& optimizer) const {
  return JoinPath(JoinPath(directory_, "wal"), optimizer);
}

absl::Status Catalog::SetLogAside(const std::string& optimizer) {
  const std::string log = LogDirectory(optimizer);
  SHARDSTEP_ASSIGN_OR_RETURN(bool exists, files_->Exists(log));
  if (!exists) return absl::OkStatus();
  const std::string lost = JoinPath(directory_, "lost");
  SHARDSTEP_RETURN_IF_ERROR(files_->CreateDirectories(lost));
  std::string to;
  for (int n = 1; exists; ++n) {
    to = JoinPath(lost, absl::StrCat(optimizer, "-", n));
    SHARDSTEP_ASSIGN_OR_RETURN(exists, files_->Exists(to));
  }
  SHARDSTEP_RETURN_IF_ERROR(files_->Rename(log, to));
  SHARDSTEP_RETURN_IF_ERROR(SyncNames(files_, lost));
  return SyncNames(files_, JoinPath(directory_, "wal"));
}

}  // namespace shardstep
