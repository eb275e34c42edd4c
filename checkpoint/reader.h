// Reading a checkpoint, by any fleet: each reader takes the parts of tensors that it will own out
// of the files that others wrote.
#ifndef SHARDSTEP_CHECKPOINT_READER_H_
#define SHARDSTEP_CHECKPOINT_READER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/checkpoint/manifest.h"
#include "shardstep/sharding/dtype.h"
#include "shardstep/sharding/region.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {

// Where a chunk of a tensor lies.
struct StoredChunk {
  size_t file = 0;     // in Manifest::files
  Region region;       // in the tensor
  int64_t offset = 0;  // of its first byte in the file
};

// A tensor of the checkpoint: a parameter's values or one of its states. Its chunks cover it
// exactly.
struct StoredTensor {
  DType dtype = DType::kInvalid;
  Shape sizes;  // of the whole tensor
  std::vector<StoredChunk> chunks;
};

// Immutable: safe from several threads.
class CheckpointReader {
 public:
  // Reads the manifest of <root>/<optimizer>/<id> and the header of every file. Errors as
  // CheckpointRoot::ReadManifest. DATA_LOSS, naming file and place: a file is missing, has another
  // size or a damaged header; the tensors are not those of the manifest's parameters and states, or
  // their chunks do not cover them.
  static absl::StatusOr<CheckpointReader> Open(FileSystem* files, const std::string& root,
                                               absl::string_view optimizer, absl::string_view id);

  const Manifest& manifest() const { return manifest_; }
  // By key (ParameterKey, StateKey of shard_files.h). Every parameter has its values, and its
  // master where its dtype has one; a parameter that was not stepped has no other states.
  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }

  // A wanted part of a tensor and where to put it.
  struct Target {
    std::string key;
    Region part;
    char* out =
        nullptr;  // receives the part in row-major order; its bytes are the caller's to hold
  };

  // Fills the targets. Goes through the files once, in their order, and reads only the checksummed
  // chunks that hold something wanted, each verified before any byte of it is used; needs a few MiB
  // of memory. `progress` receives bytes read since its last call. INVALID_ARGUMENT: a key or part
  // that the checkpoint lacks. DATA_LOSS: file and byte range of a chunk whose checksum is wrong.
  // After an error the targets hold anything.
  absl::Status Read(absl::Span<const Target> targets,
                    absl::FunctionRef<void(int64_t bytes)> progress) const;

 private:
  CheckpointReader(FileSystem* files, std::string directory, Manifest manifest)
      : files_(files), directory_(std::move(directory)), manifest_(std::move(manifest)) {}

  absl::Status AddFile(size_t file);
  absl::Status CheckTensors();

  FileSystem* files_;
  std::string directory_;
  Manifest manifest_;
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_READER_H_
