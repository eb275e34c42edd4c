// ReadProgress: what the frames of one server's ReadState must add up to, over as many attempts as
// the read takes.
#ifndef SHARDSTEP_CLIENT_READ_PROGRESS_H_
#define SHARDSTEP_CLIENT_READ_PROGRESS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "shardstep/v1/coordinator.pb.h"
#include "shardstep/wire/frame.h"

namespace shardstep::internal {

// DEADLINE_EXCEEDED: the time set for a read is over.
absl::Status ReadTookTooLong();

// Confined to one thread at a time.
class ReadProgress {
 public:
  ReadProgress(int server_rank, const v1::Snapshot& snapshot)
      : server_rank_(server_rank), version_(snapshot.version()), lineage_(snapshot.lineage()) {}

  // A new attempt begins, which skips payload_bytes().
  void Restart();
  uint64_t payload_bytes() const { return payload_bytes_; }
  // ReadEnd has come.
  bool complete() const { return complete_; }

  // Checks a frame in its turn and counts it. Slices and Scalars frames are then the caller's to
  // apply. INTERNAL: another version than the snapshot's, more bytes than announced, a frame that
  // does not belong into a read; DATA_LOSS: the end does not fit the frames.
  absl::Status Take(const FrameView& frame);

 private:
  absl::Status TakeBegin(const v1::ReadBegin& begin);

  const int server_rank_;
  const uint64_t version_;
  const uint64_t lineage_;
  uint64_t payload_bytes_ = 0;  // of all attempts
  bool complete_ = false;

  // Of this attempt.
  bool begun_ = false;
  uint64_t bytes_to_come_ = 0;
  uint64_t frames_ = 0;
  FrameDigest digest_;
};

}  // namespace shardstep::internal

#endif  // SHARDSTEP_CLIENT_READ_PROGRESS_H_
