// What was done to the names in a directory of a server's data (created, renamed, removed) becomes
// durable; and where a test can have that forgotten.
#ifndef SHARDSTEP_SERVER_SYNC_NAMES_H_
#define SHARDSTEP_SERVER_SYNC_NAMES_H_

#include <string>

#include "absl/status/status.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/server/faults.h"

namespace shardstep {

// Blocks on the disk.
inline absl::Status SyncNames(FileSystem* files, const std::string& directory) {
  if (SHARDSTEP_BUG("skip_directory_sync")) return absl::OkStatus();
  return files->SyncDirectory(directory);
}

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_SYNC_NAMES_H_
