// StateDictStream: what a StateDictReader does. Takes frames from all servers' ReadState streams
// into bounded queues, and cuts them into pieces on the reader's thread, without copying.
#ifndef SHARDSTEP_CLIENT_STATE_DICT_STREAM_H_
#define SHARDSTEP_CLIENT_STATE_DICT_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/client/block_runs.h"
#include "shardstep/client/client_core.h"
#include "shardstep/client/lease_keeper.h"
#include "shardstep/client/optimizer_index.h"
#include "shardstep/client/read_lanes.h"
#include "shardstep/client/retry.h"
#include "shardstep/client/slice_sink.h"
#include "shardstep/client/snapshot_hold.h"
#include "shardstep/client/state_dict.h"
#include "shardstep/client/state_selection.h"
#include "shardstep/wire/frame.h"

namespace shardstep::internal {

// Used by one thread. Methods as StateDictReader's.
class StateDictStream {
 public:
  // Describes the optimizer as it is in the snapshot, finds out which state there is, and begins to
  // read what `options` name. Blocks up to `deadline`, which holds for all of the read.
  static absl::StatusOr<std::unique_ptr<StateDictStream>> Open(
      std::shared_ptr<const ClientCore> client, const v1::CallHeader& header,
      std::shared_ptr<SnapshotHold> hold, const StateDictOptions& options, absl::Time deadline);

  uint64_t version() const { return snapshot_.version(); }
  uint64_t lineage() const { return snapshot_.lineage(); }
  const std::vector<ParamGroup>& param_groups() const { return described_->description().groups; }
  const std::map<int, std::string>& trainer_states() const { return trainer_states_; }
  const std::vector<StateDictEntry>& entries() const { return entries_; }
  uint64_t total_bytes() const { return total_bytes_; }
  absl::StatusOr<std::optional<StateDictPiece>> Next();

 private:
  using Key = StateSelection::Key;

  StateDictStream(std::shared_ptr<const ClientCore> client, std::shared_ptr<SnapshotHold> hold,
                  absl::Time deadline);

  absl::Status FindEntries(const v1::ReadStateRequest& request, const StateSelection& selection);
  void StartLanes(const v1::ReadStateRequest& request);
  void Finish();

  // Of the current frame; nullopt: it has no more.
  absl::StatusOr<std::optional<StateDictPiece>> NextOfFrame();
  absl::Status BeginSlice();
  StateDictPiece NextScalar();
  // Waits for the next frame of any lane. False: all lanes are done.
  absl::StatusOr<bool> NextFrame();

  const std::shared_ptr<const ClientCore> client_;
  const v1::Snapshot snapshot_;
  std::shared_ptr<SnapshotHold> hold_;  // both null once all is read
  std::unique_ptr<LeaseKeeper::Lease> lease_;
  const absl::Time deadline_;
  std::shared_ptr<const OptimizerIndex> described_;
  std::map<int, std::string> trainer_states_;
  std::vector<StateDictEntry> entries_;
  absl::flat_hash_map<Key, size_t> entry_of_;
  std::vector<uint64_t> bytes_left_;  // by entry
  uint64_t total_bytes_ = 0;

  size_t next_scalar_ = 0;  // entries before it are no scalars or have come
  std::vector<char> scalar_;

  // The frame that is being cut, and where in it.
  std::optional<ReceivedFrame> received_;
  FrameView frame_;
  int frame_rank_ = 0;
  std::optional<PayloadReader> payload_;
  int slice_ = 0;
  uint64_t position_ = 0;  // next element of the slice, in its shard
  size_t entry_ = 0;
  std::optional<BlockRuns> runs_;
  int64_t run_ = 0;
  uint64_t run_done_ = 0;  // bytes of the run

  absl::Status failed_;
  std::unique_ptr<ReadLanes> lanes_;  // null: not begun, or done
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_STATE_DICT_STREAM_H_
