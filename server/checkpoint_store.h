// CheckpointStore: checkpoints as one server of a fleet reads and writes them; between the messages
// of proto/shardstep/v1/peer.proto and checkpoint/.
#ifndef SHARDSTEP_SERVER_CHECKPOINT_STORE_H_
#define SHARDSTEP_SERVER_CHECKPOINT_STORE_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/checkpoint/directory.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/server/assembly.h"
#include "shardstep/server/held_version.h"
#include "shardstep/server/staging.h"
#include "shardstep/v1/coordinator.pb.h"
#include "shardstep/v1/peer.pb.h"

namespace shardstep {

// Bytes done so far, of how many.
using FileProgressFn = std::function<void(int64_t done, int64_t total)>;

// Thread-safe; every method blocks on the disk. Errors name files and what is wrong with them.
class CheckpointStore {
 public:
  // `files` must outlive it. `root`: the fleet file's "checkpoints"; empty: there are none, and
  // every method says so (FAILED_PRECONDITION). Of automatic checkpoints the `keep_last` newest
  // stay.
  // `make_token` gives what no other checkpoint's probe file holds.
  CheckpointStore(FileSystem* files, std::string root, int server_rank, int keep_last,
                  std::function<std::string()> make_token = RandomToken);

  static std::string RandomToken();

  const std::string& root() const { return root_; }

  // Server 0's part; see the messages.
  absl::StatusOr<v1::CheckpointBegun> Begin(const std::string& optimizer,
                                            const v1::BeginCheckpoint& request);
  absl::Status Finish(const std::string& optimizer, const v1::FinishCheckpoint& request);
  absl::StatusOr<v1::CheckpointFacts> ReadManifest(const std::string& optimizer,
                                                   const v1::ReadManifest& request);

  // Every server's part. FAILED_PRECONDITION, naming both servers, if this one does not see what
  // server 0 made.
  absl::StatusOr<v1::CheckpointWritten> Write(const HeldVersion& held,
                                              const v1::WriteCheckpoint& request,
                                              const FileProgressFn& progress);
  // Reads all that the staging wants into `write`.
  absl::Status Fill(const Staging& staging, const std::string& id, Assembly* write,
                    const FileProgressFn& progress);

  // What shardctl asks.
  absl::StatusOr<v1::ListCheckpointsReply> List(const std::string& optimizer);
  absl::StatusOr<v1::VerifyCheckpointReply> Verify(const v1::VerifyCheckpointRequest& request);

 private:
  absl::Status CheckRoot() const;

  FileSystem* const files_;
  const std::string root_;
  const int server_rank_;
  const int keep_last_;
  const std::function<std::string()> make_token_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_CHECKPOINT_STORE_H_
