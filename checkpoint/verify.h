// Looking for damage in a checkpoint: reads every byte.
#ifndef SHARDSTEP_CHECKPOINT_VERIFY_H_
#define SHARDSTEP_CHECKPOINT_VERIFY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/checkpoint/manifest.h"

namespace shardstep {

// What is wrong with one file of the checkpoint in `directory`, in words without the file's name,
// each with its place: "missing", "size 1000, expected 1024", "bytes 1048576 to 2097152: CRC32C
// ...", "SHA-256 ...", "header: ...". Empty: the file is as it was written. `progress` receives
// bytes read since its last call.
std::vector<std::string> VerifyFile(FileSystem* files, const std::string& directory,
                                    const FileRecord& record,
                                    absl::FunctionRef<void(int64_t bytes)> progress);

struct FileProblem {
  std::string file;
  std::string what;
};

// The same for the manifest, every file, and whether the tensors fit the manifest. NOT_FOUND and
// INVALID_ARGUMENT as CheckpointReader::Open; whatever else is wrong is in the list.
absl::StatusOr<std::vector<FileProblem>> VerifyCheckpoint(
    FileSystem* files, const std::string& root, absl::string_view optimizer, absl::string_view id,
    absl::FunctionRef<void(int64_t bytes)> progress);

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_VERIFY_H_
