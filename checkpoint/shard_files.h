// The tensor files of a checkpoint, one writer's side: which files there are, what they hold, and
// writing one. They are safetensors with PyTorch DCP's sharding metadata in the header
// (torch/distributed/checkpoint/hf_storage.py), so that stock Python loads them.
//
// One file per server, and one more for each further shard of one parameter on it: a file holds one
// chunk of a tensor at most.
#ifndef SHARDSTEP_CHECKPOINT_SHARD_FILES_H_
#define SHARDSTEP_CHECKPOINT_SHARD_FILES_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/checkpoint/manifest.h"
#include "shardstep/checkpoint/names.h"
#include "shardstep/sharding/dtype.h"
#include "shardstep/sharding/plan.h"
#include "shardstep/sharding/shape.h"

namespace shardstep {

// What goes into one file: of each of these shards its values and states. The scalars of a
// parameter go into the one file that holds its first shard (`scalars`: indices of parameters).
struct PlannedFile {
  int server_rank = 0;
  std::vector<size_t> shards;  // indices in plan.shards
  std::vector<int> scalars;
};

// The files of a checkpoint in their order: by server rank, each of `servers` having at least one.
// Shards without elements are left out, unless their parameter has none at all. A pure function.
std::vector<PlannedFile> PlanFiles(const Plan& plan, int servers);

// Metadata key in a file's header: the groups as JSON, as ParamGroupsToJson (option_json.h) gives
// it.
inline constexpr char kParamGroupsKey[] = "shardstep.param_groups";

// Metadata key of DCP: {key: {"saved_offsets": [...]}} as JSON.
inline constexpr char kShardingInfoKey[] = "DCP_SHARDING_INFO";

// A chunk of a tensor, in row-major order. Borrowed.
struct ShardTensor {
  std::string key;
  DType dtype = DType::kInvalid;  // in the file
  Shape sizes;
  Shape saved_offsets;  // of the chunk in its tensor; as many as `sizes`
  absl::string_view bytes;
  // `bytes` are of the master dtype, and are rounded on their way into the file where that is not
  // `dtype`.
  bool master = false;
};

// Writes directory/name: a header with DCP's metadata and `extra_metadata`, then the tensors in the
// order given, straight from their memory, masters rounded a piece at a time. Reports the bytes
// written from time to time through `progress` (their number since the last report). Returns when
// the file is on the disk; its name is durable once the directory is synced
// (CheckpointRoot::Finish). INVALID_ARGUMENT: a key twice, a dtype that safetensors lacks, sizes
// that do not fit the bytes, a header above safetensors' limit; else the file system's errors.
// After an error the file may exist.
absl::StatusOr<FileRecord> WriteShardFile(FileSystem* files, const std::string& directory,
                                          const std::string& name,
                                          absl::Span<const ShardTensor> tensors,
                                          const std::map<std::string, std::string>& extra_metadata,
                                          absl::FunctionRef<void(int64_t bytes)> progress);

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_SHARD_FILES_H_
