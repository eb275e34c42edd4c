// Checkpointer: the coordinator's side of writing checkpoints of one optimizer, one after the
// other.
//
// A run: a hold of everything is taken; server 0 makes the temporary directory (BeginCheckpoint);
// every server writes its files (WriteCheckpoint); server 0 writes the manifest and gives the
// directory its name (FinishCheckpoint). Training goes on meanwhile. If anything fails, server 0
// removes what was written, and whoever asked is told.
#ifndef SHARDSTEP_SERVER_CHECKPOINTER_H_
#define SHARDSTEP_SERVER_CHECKPOINTER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/server/caller.h"
#include "shardstep/server/reply.h"
#include "shardstep/v1/coordinator.pb.h"
#include "shardstep/v1/peer.pb.h"

namespace shardstep {

// Confined to its coordinator's serializer.
class Checkpointer {
 public:
  struct Outside {
    // To one server's message stream.
    std::function<void(int server, v1::PeerMessage)> send;
    // Opens a snapshot of everything.
    std::function<void(Reply<v1::OpenSnapshotReply>)> hold;
    std::function<void(uint64_t snapshot)> renew;
    std::function<void(uint64_t snapshot)> close;
    // What the manifest is to say of the version that was held just now; no files yet.
    std::function<v1::CheckpointFacts()> facts;
    // A run has ended: the facts of a checkpoint that stands, or why there is none.
    std::function<void(const absl::StatusOr<v1::CheckpointFacts>&)> ended;
  };

  Checkpointer(int servers, Outside outside);

  // A client's call. One with the request_id of a run that is under way, or was, is the same run.
  void Ask(const v1::CheckpointRequest& request, Caller caller, Reply<v1::CheckpointReply> reply);
  // The servers' own. Nothing if one of those is waiting or under way.
  void AskAutomatic();
  // Whether an automatic one waits or is under way.
  bool automatic() const;
  bool idle() const { return runs_.empty(); }
  // Bytes written by all servers, of how many, of the run that is under way.
  void GetProgress(uint64_t* done, uint64_t* total) const;

  void OnBegun(const v1::CheckpointBegun& begun);
  void OnWritten(int server, const v1::CheckpointWritten& written);
  void OnFinished(const v1::CheckpointFinished& finished);
  void OnProgress(int server, const v1::FileProgress& progress);

  // Renews the hold and answers callers whose time has come.
  void Tick(absl::Time now);
  // Ends every run, with this for whoever waits.
  void FailAll(const absl::Status& status);

 private:
  struct Waiter {
    Caller caller;
    Reply<v1::CheckpointReply> reply;
  };
  struct Run {
    uint64_t number = 0;
    std::string request_id;
    std::string checkpoint_id;  // as asked for; then as given
    bool automatic = false;
    std::vector<Waiter> waiters;

    bool started = false;
    uint64_t snapshot = 0;
    bool begun = false;
    v1::CheckpointFacts facts;
    // By server.
    std::vector<bool> answered;
    std::vector<v1::CheckpointWritten> written;
    std::vector<v1::FileProgress> progress;
    absl::Status error;
  };

  void Enqueue(std::unique_ptr<Run> run);
  void StartNext();
  Run* Find(uint64_t number);
  void End(const absl::Status& status);

  const int servers_;
  const Outside outside_;
  uint64_t last_number_ = 0;
  std::deque<std::unique_ptr<Run>> runs_;  // the first is under way
  // Of the last requests, by request_id.
  std::map<std::string, v1::CheckpointReply::Done> done_;
  std::deque<std::string> done_order_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_CHECKPOINTER_H_
