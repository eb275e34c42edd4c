// The manifest of a checkpoint: everything about it but the tensors' bytes, and the checksums of
// those. The last file of a checkpoint to be written.
//
// On disk it is one JSON object that any reader can parse, whose last member is the SHA-256 of all
// bytes before that member: any byte that is changed, added or missing is found.
#ifndef SHARDSTEP_CHECKPOINT_MANIFEST_H_
#define SHARDSTEP_CHECKPOINT_MANIFEST_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/optim/options/param_group.h"
#include "shardstep/optim/options/state_spec.h"
#include "shardstep/sharding/plan.h"
#include "shardstep/wire/optimizer_definition.h"

namespace shardstep {

inline constexpr char kManifestName[] = "manifest.json";
inline constexpr int64_t kMaxManifestBytes = int64_t{1} << 30;

// Bytes of a checksummed chunk, as written; and what a manifest may say.
inline constexpr int64_t kChunkBytes = 1 << 20;
inline constexpr int64_t kMinChunkBytes = 4 << 10;
inline constexpr int64_t kMaxChunkBytes = 64 << 20;

// A file beside the manifest, with its checksums.
struct FileRecord {
  std::string name;  // ShardFileName(place in the list, files)
  int64_t bytes = 0;
  std::string sha256;  // of the whole file, lower-case hexadecimal
  // CRC32C of every `chunk_bytes` of the file, its header included; the last chunk may be shorter.
  int64_t chunk_bytes = 0;
  std::vector<uint32_t> crc32c;
};

// What is known of a trainer rank at the version of the checkpoint.
struct TrainerRecord {
  int trainer_rank = 0;
  uint64_t session = 0;    // its highest session number; 0: none
  uint64_t last_call = 0;  // of its last committed Step
  uint64_t last_version = 0;
  std::string trainer_state;  // any bytes, kMaxTrainerStateBytes at most
};

struct Manifest {
  std::string optimizer;
  std::string id;
  bool automatic = false;  // made by the servers' own schedule, and removed by it
  uint64_t version = 0;
  uint64_t lineage = 0;
  uint64_t lineage_ordinal = 0;
  uint64_t parent_lineage = 0;  // 0: none
  uint32_t numeric_fingerprint = 0;
  // Parameters and groups that were added later stand behind those of the creation, as they were
  // added.
  OptimizerDefinition definition;
  // So many of definition.groups are the creation's.
  size_t created_groups = 0;
  std::vector<ParamGroup> groups;  // as of the version
  std::vector<StateSpec> states;
  Plan plan;  // of the fleet that wrote it
  std::vector<TrainerRecord> trainers;
  uint64_t last_session = 0;  // the highest session number ever given
  std::vector<FileRecord> files;
};

// The file's text. The same manifest gives the same text.
std::string SerializeManifest(const Manifest& manifest);

// The inverse. `path` begins the messages, which name the place in the file. DATA_LOSS: anything
// but what SerializeManifest wrote, byte for byte. INVALID_ARGUMENT: intact, but by a writer that
// does not keep the rules: a field that is missing, of another type or out of range; names, shapes,
// groups, options or plan that their own checks refuse; a file's name that is not its place's;
// nesting above 64; a name twice in one object. Members that are not known are ignored.
absl::StatusOr<Manifest> ParseManifest(absl::string_view text, absl::string_view path);

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_MANIFEST_H_
