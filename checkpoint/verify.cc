#include "shardstep/checkpoint/verify.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/chunk_reader.h"
#include "shardstep/checkpoint/directory.h"
#include "shardstep/checkpoint/reader.h"
#include "shardstep/checkpoint/sha256.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

// "\"/mnt/c/digits/1-2/a\": bytes 0 to 5: ..." without the path, which the caller says.
std::string WithoutPath(const absl::Status& status, const std::string& path) {
  std::string message(status.message());
  const std::string prefix = absl::StrCat("\"", path, "\": ");
  return absl::StartsWith(message, prefix) ? message.substr(prefix.size()) : message;
}

}  // namespace

std::vector<std::string> VerifyFile(FileSystem* files, const std::string& directory,
                                    const FileRecord& record,
                                    absl::FunctionRef<void(int64_t)> progress) {
  const std::string path = JoinPath(directory, record.name);
  std::vector<std::string> problems;
  const auto add = [&](const absl::Status& status) {
    problems.push_back(WithoutPath(status, path));
  };
  const absl::StatusOr<ChunkReader> reader = ChunkReader::Open(files, directory, record);
  if (!reader.ok()) {
    add(reader.status());
    return problems;
  }
  Sha256 sha256;
  std::vector<char> bytes;
  for (size_t chunk = 0; chunk < record.crc32c.size(); ++chunk) {
    const absl::Status read = reader->Read(chunk, chunk + 1, &bytes);
    if (!read.ok()) add(read);
    // The disk itself refuses: its other chunks may take minutes each to fail.
    if (!read.ok() && !absl::IsDataLoss(read)) return problems;
    sha256.Update(absl::string_view(bytes.data(), bytes.size()));
    progress(static_cast<int64_t>(bytes.size()));
  }
  const absl::StatusOr<std::string> actual = sha256.Finish();
  if (!actual.ok()) {
    add(actual.status());
  } else if (*actual != record.sha256) {
    problems.push_back(absl::StrCat("SHA-256 ", *actual, ", expected ", record.sha256));
  }
  if (!problems.empty()) return problems;
  const absl::StatusOr<SafetensorsHeader> header = reader->ReadHeader();
  if (!header.ok()) add(header.status());
  return problems;
}

absl::StatusOr<std::vector<FileProblem>> VerifyCheckpoint(
    FileSystem* files, const std::string& root, absl::string_view optimizer, absl::string_view id,
    absl::FunctionRef<void(int64_t)> progress) {
  SHARDSTEP_RETURN_IF_ERROR(ValidateOptimizerName(optimizer));
  SHARDSTEP_RETURN_IF_ERROR(ValidateCheckpointId(id));
  const CheckpointRoot checkpoints(files, root);
  const std::string directory = checkpoints.Directory(optimizer, id);
  const auto manifest_problem = [&](const absl::Status& status) {
    return FileProblem{kManifestName, WithoutPath(status, JoinPath(directory, kManifestName))};
  };
  const absl::StatusOr<Manifest> manifest = checkpoints.ReadManifest(optimizer, id);
  if (absl::IsNotFound(manifest.status())) return manifest.status();
  std::vector<FileProblem> problems;
  if (!manifest.ok()) {
    problems.push_back(manifest_problem(manifest.status()));
    return problems;
  }
  for (const FileRecord& record : manifest->files) {
    for (std::string& what : VerifyFile(files, directory, record, progress)) {
      problems.push_back({record.name, std::move(what)});
    }
  }
  SHARDSTEP_ASSIGN_OR_RETURN(const std::vector<DirectoryEntry> entries, files->List(directory));
  for (const DirectoryEntry& entry : entries) {
    const bool known = std::any_of(manifest->files.begin(), manifest->files.end(),
                                   [&](const FileRecord& r) { return r.name == entry.name; });
    // Whoever loads the directory as safetensors files would take it for a part of the checkpoint.
    if (!known && absl::EndsWith(entry.name, ".safetensors")) {
      problems.push_back({entry.name, "not in the manifest"});
    }
  }
  if (!problems.empty()) return problems;
  // Every byte is as it was written: that may still not be what the manifest speaks of.
  const absl::Status opened = CheckpointReader::Open(files, root, optimizer, id).status();
  if (!opened.ok()) problems.push_back(manifest_problem(opened));
  return problems;
}

}  // namespace shardstep
