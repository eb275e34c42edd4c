// The directory of checkpoints: <root>/<optimizer>/<id>/, each written once under a temporary name
// and given its own when it is whole, so that whatever has an id is complete, also after a crash at
// any moment.
//
// Names beginning with a dot are under way or on their way out; the next Begin of that optimizer
// removes them. One process at a time (the optimizer's coordinator) writes to one optimizer's
// directory; everybody may read. Every call blocks on the disk.
#ifndef SHARDSTEP_CHECKPOINT_DIRECTORY_H_
#define SHARDSTEP_CHECKPOINT_DIRECTORY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/checkpoint/manifest.h"
#include "shardstep/checkpoint/names.h"

namespace shardstep {

struct CheckpointInfo {
  std::string id;
  uint64_t version = 0;
  uint64_t lineage = 0;
  uint64_t lineage_ordinal = 0;
  bool automatic = false;
  int64_t bytes = 0;  // of its files, without the manifest
};

// A directory that has an id and is no checkpoint.
struct CheckpointProblem {
  std::string id;
  std::string what;
};

struct CheckpointList {
  std::vector<CheckpointInfo> checkpoints;  // by (lineage_ordinal, version, id): the newest is last
  std::vector<CheckpointProblem> problems;
};

class CheckpointRoot {
 public:
  // Borrows `files`. Touches nothing yet.
  CheckpointRoot(FileSystem* files, std::string root);

  // Starts a checkpoint: removes what is left of interrupted ones of this optimizer, makes the
  // temporary directory and in it a probe file that holds `token`. INVALID_ARGUMENT: a name or id
  // that is not allowed, or that differs only by letter case from one that is there.
  // ALREADY_EXISTS.
  absl::Status Begin(absl::string_view optimizer, absl::string_view id, absl::string_view token);

  // Whether this machine sees what Begin made: for every other server, before it writes.
  // FAILED_PRECONDITION says what was not seen under which root.
  absl::Status CheckProbe(absl::string_view optimizer, absl::string_view id,
                          absl::string_view token) const;

  // Where the files of a checkpoint that has begun are written, and where a whole one's are.
  std::string WritingDirectory(absl::string_view optimizer, absl::string_view id) const;
  std::string Directory(absl::string_view optimizer, absl::string_view id) const;

  // Makes the checkpoint whole: writes the manifest and gives the directory its name. All files are
  // written and synced by now. When it returns OK the checkpoint survives a crash; after an error
  // it may or may not be there, whole or not at all.
  absl::Status Finish(absl::string_view optimizer, absl::string_view id,
                      absl::string_view manifest_text);

  // Removes what Begin and the servers made. OK if there is nothing.
  absl::Status Abandon(absl::string_view optimizer, absl::string_view id);

  // The manifest of a whole checkpoint. NOT_FOUND: no such checkpoint (the nearest id is named).
  // INVALID_ARGUMENT: a name or id that is not allowed. DATA_LOSS: the manifest is missing, damaged
  // or of another checkpoint; else what ParseManifest refuses.
  absl::StatusOr<Manifest> ReadManifest(absl::string_view optimizer, absl::string_view id) const;

  // The optimizer's checkpoints; none if it has no directory. Reads all manifests.
  absl::StatusOr<CheckpointList> List(absl::string_view optimizer) const;

  // Removes all but the `keep` (at least 1) newest automatic checkpoints and returns their ids.
  // Others, and broken ones, stay. An interrupted removal never leaves half a checkpoint.
  absl::StatusOr<std::vector<std::string>> KeepLast(absl::string_view optimizer, int keep);

  // One above the highest lineage ordinal of the optimizer's checkpoints, ids of broken ones
  // included; at least 1.
  absl::StatusOr<uint64_t> NextOrdinal(absl::string_view optimizer) const;

 private:
  std::string OptimizerDirectory(absl::string_view optimizer) const;

  FileSystem* const files_;
  const std::string root_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_CHECKPOINT_DIRECTORY_H_
