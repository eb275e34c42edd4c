// Base files: a whole version of one server's shards, as a file of records (server/record_file.h):
// BaseHeader, a BaseTensor for each value and state tensor, BaseEnd.
#ifndef SHARDSTEP_SERVER_BASE_FILE_H_
#define SHARDSTEP_SERVER_BASE_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/optim/local_optimizer.h"
#include "shardstep/v1/log.pb.h"

namespace shardstep {

struct Base {
  v1::BaseHeader header;
  // By local shard of header.description's layout, scalars by parameter.
  LocalState state;
};

// Both block on the disk.

// Makes the file `path`, which must not exist, writes and syncs it. `header.scalars` is filled in
// from `state`. Tensors are contiguous and are written from where they lie.
absl::Status WriteBaseFile(FileSystem* files, const std::string& path, v1::BaseHeader header,
                           const LocalState& state);
// DATA_LOSS, naming the file, if it is not whole or does not fit its own description on
// `server_rank`.
absl::StatusOr<Base> ReadBaseFile(FileSystem* files, const std::string& path, int server_rank);

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_BASE_FILE_H_
