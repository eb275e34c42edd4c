#include "shardstep/checkpoint/directory.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "shardstep/sharding/nearest_name.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep {
namespace {

constexpr char kProbeName[] = "probe";
constexpr char kTemporaryPrefix[] = ".tmp-";
constexpr char kRemovedPrefix[] = ".tmp-removed-";
constexpr int64_t kMaxProbeBytes = 4096;

absl::Status ValidateNames(absl::string_view optimizer, absl::string_view id) {
  SHARDSTEP_RETURN_IF_ERROR(ValidateOptimizerName(optimizer));
  return ValidateCheckpointId(id);
}

std::string Named(absl::string_view optimizer, absl::string_view id) {
  return absl::StrCat("checkpoint \"", id, "\" of \"", optimizer, "\"");
}

// A missing directory is an empty one.
absl::StatusOr<std::vector<DirectoryEntry>> ListOrNone(FileSystem* files, const std::string& path) {
  absl::StatusOr<std::vector<DirectoryEntry>> entries = files->List(path);
  if (absl::IsNotFound(entries.status())) return std::vector<DirectoryEntry>();
  return entries;
}

// Names that differ by case alone would be one on some file systems.
absl::Status CheckCase(absl::string_view what, absl::string_view name,
                       const std::vector<DirectoryEntry>& existing) {
  for (const DirectoryEntry& entry : existing) {
    if (entry.name != name && absl::EqualsIgnoreCase(entry.name, name)) {
      return absl::InvalidArgumentError(absl::StrCat(
          what, " \"", name, "\": there is \"", entry.name, "\", which differs in case alone"));
    }
  }
  return absl::OkStatus();
}

std::vector<std::string> Ids(const std::vector<DirectoryEntry>& entries) {
  std::vector<std::string> ids;
  for (const DirectoryEntry& entry : entries) {
    if (entry.is_directory && ValidateCheckpointId(entry.name).ok()) ids.push_back(entry.name);
  }
  return ids;
}

// The first number of an id that DefaultCheckpointId made; else 0.
uint64_t OrdinalOfId(absl::string_view id) {
  const std::vector<absl::string_view> parts = absl::StrSplit(id, '-');
  uint64_t ordinal = 0;
  uint64_t version = 0;
  const bool is_default = parts.size() == 2 && absl::SimpleAtoi(parts[0], &ordinal) &&
                          absl::SimpleAtoi(parts[1], &version);
  return is_default ? ordinal : 0;
}

}  // namespace

CheckpointRoot::CheckpointRoot(FileSystem* files, std::string root)
    : files_(files), root_(std::move(root)) {}

std::string CheckpointRoot::OptimizerDirectory(absl::string_view optimizer) const {
  return JoinPath(root_, optimizer);
}

std::string CheckpointRoot::Directory(absl::string_view optimizer, absl::string_view id) const {
  return JoinPath(OptimizerDirectory(optimizer), id);
}

std::string CheckpointRoot::WritingDirectory(absl::string_view optimizer,
                                             absl::string_view id) const {
  return JoinPath(OptimizerDirectory(optimizer), absl::StrCat(kTemporaryPrefix, id));
}

absl::Status CheckpointRoot::Begin(absl::string_view optimizer, absl::string_view id,
                                   absl::string_view token) {
  SHARDSTEP_RETURN_IF_ERROR(ValidateNames(optimizer, id));
  SHARDSTEP_ASSIGN_OR_RETURN(const std::vector<DirectoryEntry> optimizers,
                             ListOrNone(files_, root_));
  SHARDSTEP_RETURN_IF_ERROR(CheckCase("optimizer", optimizer, optimizers));
  SHARDSTEP_ASSIGN_OR_RETURN(const std::vector<DirectoryEntry> existing,
                             ListOrNone(files_, OptimizerDirectory(optimizer)));
  SHARDSTEP_RETURN_IF_ERROR(CheckCase("checkpoint", id, existing));
  for (const DirectoryEntry& entry : existing) {
    if (entry.name == id) {
      return absl::AlreadyExistsError(
          absl::StrCat(Named(optimizer, id), ": exists under \"", root_, "\""));
    }
    if (!absl::StartsWith(entry.name, kTemporaryPrefix)) continue;
    const std::string path = JoinPath(OptimizerDirectory(optimizer), entry.name);
    SHARDSTEP_RETURN_IF_ERROR(entry.is_directory ? RemoveTree(files_, path)
                                                 : files_->RemoveFile(path));
  }
  const std::string directory = WritingDirectory(optimizer, id);
  SHARDSTEP_RETURN_IF_ERROR(files_->CreateDirectories(directory));
  return WriteWholeFile(files_, JoinPath(directory, kProbeName), token);
}

absl::Status CheckpointRoot::CheckProbe(absl::string_view optimizer, absl::string_view id,
                                        absl::string_view token) const {
  SHARDSTEP_RETURN_IF_ERROR(ValidateNames(optimizer, id));
  const std::string path = JoinPath(WritingDirectory(optimizer, id), kProbeName);
  const absl::StatusOr<std::string> seen = ReadWholeFile(files_, path, kMaxProbeBytes);
  if (seen.ok() && *seen == token) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "checkpoint root \"", root_, "\" is not the one that the coordinator writes to: ",
      seen.ok() ? absl::StrCat("\"", path, "\" holds \"", absl::CHexEscape(seen->substr(0, 64)),
                               "\", expected \"", token, "\"")
                : std::string(seen.status().message())));
}

absl::Status CheckpointRoot::Finish(absl::string_view optimizer, absl::string_view id,
                                    absl::string_view manifest_text) {
  SHARDSTEP_RETURN_IF_ERROR(ValidateNames(optimizer, id));
  const std::string directory = WritingDirectory(optimizer, id);
  SHARDSTEP_RETURN_IF_ERROR(files_->RemoveFile(JoinPath(directory, kProbeName)));
  SHARDSTEP_RETURN_IF_ERROR(
      WriteWholeFile(files_, JoinPath(directory, kManifestName), manifest_text));
  SHARDSTEP_RETURN_IF_ERROR(files_->SyncDirectory(directory));
  const std::string final_directory = Directory(optimizer, id);
  SHARDSTEP_ASSIGN_OR_RETURN(const bool exists, files_->Exists(final_directory));
  if (exists) {
    return absl::AlreadyExistsError(
        absl::StrCat(Named(optimizer, id), ": exists under \"", root_, "\""));
  }
  SHARDSTEP_RETURN_IF_ERROR(files_->Rename(directory, final_directory));
  return files_->SyncDirectory(OptimizerDirectory(optimizer));
}

absl::Status CheckpointRoot::Abandon(absl::string_view optimizer, absl::string_view id) {
  SHARDSTEP_RETURN_IF_ERROR(ValidateNames(optimizer, id));
  return RemoveTree(files_, WritingDirectory(optimizer, id));
}

absl::StatusOr<Manifest> CheckpointRoot::ReadManifest(absl::string_view optimizer,
                                                      absl::string_view id) const {
  SHARDSTEP_RETURN_IF_ERROR(ValidateNames(optimizer, id));
  SHARDSTEP_ASSIGN_OR_RETURN(const std::vector<DirectoryEntry> entries,
                             ListOrNone(files_, OptimizerDirectory(optimizer)));
  const std::vector<std::string> ids = Ids(entries);
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) {
    const std::string nearest = NearestName(id, ids);
    return absl::NotFoundError(
        absl::StrCat(Named(optimizer, id), ": not under \"", root_, "\"",
                     nearest.empty() ? "" : absl::StrCat("; did you mean \"", nearest, "\"")));
  }
  const std::string path = JoinPath(Directory(optimizer, id), kManifestName);
  const absl::StatusOr<std::string> text = ReadWholeFile(files_, path, kMaxManifestBytes);
  if (absl::IsNotFound(text.status())) {
    return absl::DataLossError(absl::StrCat("\"", path, "\": missing"));
  }
  SHARDSTEP_RETURN_IF_ERROR(text.status());
  SHARDSTEP_ASSIGN_OR_RETURN(Manifest manifest, ParseManifest(*text, path));
  if (manifest.optimizer == optimizer && manifest.id == id) return manifest;
  return absl::DataLossError(
      absl::StrCat("\"", path, "\": is of ", Named(manifest.optimizer, manifest.id)));
}

absl::StatusOr<CheckpointList> CheckpointRoot::List(absl::string_view optimizer) const {
  SHARDSTEP_RETURN_IF_ERROR(ValidateOptimizerName(optimizer));
  SHARDSTEP_ASSIGN_OR_RETURN(const std::vector<DirectoryEntry> entries,
                             ListOrNone(files_, OptimizerDirectory(optimizer)));
  CheckpointList list;
  for (const std::string& id : Ids(entries)) {
    absl::StatusOr<Manifest> manifest = ReadManifest(optimizer, id);
    if (!manifest.ok()) {
      list.problems.push_back({id, std::string(manifest.status().message())});
      continue;
    }
    int64_t bytes = 0;
    for (const FileRecord& file : manifest->files) bytes += file.bytes;
    list.checkpoints.push_back({id, manifest->version, manifest->lineage, manifest->lineage_ordinal,
                                manifest->automatic, bytes});
  }
  std::sort(list.checkpoints.begin(), list.checkpoints.end(),
            [](const CheckpointInfo& a, const CheckpointInfo& b) {
              return std::tie(a.lineage_ordinal, a.version, a.id) <
                     std::tie(b.lineage_ordinal, b.version, b.id);
            });
  return list;
}

absl::StatusOr<std::vector<std::string>> CheckpointRoot::KeepLast(absl::string_view optimizer,
                                                                  int keep) {
  if (keep < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("keep the last ", keep, " checkpoints, expected at least 1"));
  }
  SHARDSTEP_ASSIGN_OR_RETURN(CheckpointList list, List(optimizer));
  std::vector<std::string> removable;
  for (const CheckpointInfo& checkpoint : list.checkpoints) {
    if (checkpoint.automatic) removable.push_back(checkpoint.id);
  }
  removable.resize(removable.size() - std::min<size_t>(removable.size(), keep));
  for (const std::string& id : removable) {
    const std::string removed =
        JoinPath(OptimizerDirectory(optimizer), absl::StrCat(kRemovedPrefix, id));
    SHARDSTEP_RETURN_IF_ERROR(RemoveTree(files_, removed));
    SHARDSTEP_RETURN_IF_ERROR(files_->Rename(Directory(optimizer, id), removed));
    // Else a power cut could bring the name back without the files.
    SHARDSTEP_RETURN_IF_ERROR(files_->SyncDirectory(OptimizerDirectory(optimizer)));
    SHARDSTEP_RETURN_IF_ERROR(RemoveTree(files_, removed));
  }
  return removable;
}

absl::StatusOr<uint64_t> CheckpointRoot::NextOrdinal(absl::string_view optimizer) const {
  SHARDSTEP_ASSIGN_OR_RETURN(const CheckpointList list, List(optimizer));
  uint64_t highest = 0;
  for (const CheckpointInfo& checkpoint : list.checkpoints) {
    highest = std::max({highest, checkpoint.lineage_ordinal, OrdinalOfId(checkpoint.id)});
  }
  for (const CheckpointProblem& problem : list.problems) {
    highest = std::max(highest, OrdinalOfId(problem.id));
  }
  return highest + 1;
}

}  // namespace shardstep
