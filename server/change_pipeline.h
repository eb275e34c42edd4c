// ChangePipeline: prepare, decide, commit. The coordinator's changes in flight, in the one order in
// which all servers apply them. It knows what every server has been told and has answered, so that
// one that starts again, with its log, is told what it lacks.
//
// A step whose optimizer needs sums over all shards goes through rounds of Reduce before its commit
// is sent.
//
// Prepare of the next step may go out before the commit of the one before it; decisions are made in
// version order, and so commits are. Aborting a version aborts every prepared version above it;
// those are prepared again, one version lower, and their callers notice nothing.
#ifndef SHARDSTEP_SERVER_CHANGE_PIPELINE_H_
#define SHARDSTEP_SERVER_CHANGE_PIPELINE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/server/decision.h"
#include "shardstep/v1/coordinator.pb.h"
#include "shardstep/v1/peer.pb.h"

namespace shardstep {

// A change on its way. `finished` is called once: with OK when every server has applied it, else
// with why it was aborted, nothing having changed anywhere.
struct Change {
  // Ballot, and version where `version` is absent, are the pipeline's to fill.
  v1::Prepare request;
  // The version it becomes; absent: the next one.
  std::optional<uint64_t> version;
  // Hold the new version under this snapshot number; 0 = no hold.
  v1::Hold hold;
  std::function<void(Change&, const absl::Status&)> finished;

  // Results. While rounds of sums go on: the verdict as far as it is known.
  std::optional<Verdict> reducing;
  std::optional<Verdict> verdict;
  // Some server has not taken the hold, or not any more.
  bool hold_lost = false;

  // By server rank.
  std::vector<std::optional<v1::Prepared>> answers;
  std::vector<std::optional<v1::Reduced>> reduced;  // in the round that goes on
  std::vector<bool> applied;
};

// Confined to its coordinator's serializer.
class ChangePipeline {
 public:
  struct Outside {
    // To one server's message stream.
    std::function<void(int server, v1::PeerMessage)> send;
    // Decides; see decision.h.
    std::function<Verdict(const v1::Prepare&, const std::vector<v1::Prepared>&)> decide;
    // How many rounds of sums a step takes, and what all servers' answers to one add up to.
    std::function<int()> reduce_rounds;
    std::function<absl::StatusOr<v1::Totals>(const std::vector<v1::Reduced>&)> add_up;
    // A server failed in the middle of applying a commit: its shards are lost.
    std::function<void(int server, const absl::Status&)> server_failed;
    // Servers keep logs: they may ask again for what all have acted on.
    bool logged = false;
  };

  ChangePipeline(int servers, uint64_t coordinator_incarnation, Outside outside);

  // A change that names its version travels alone.
  void Start(std::unique_ptr<Change> change);
  void OnPrepared(int server, const v1::Prepared& answer);
  void OnReduced(int server, const v1::Reduced& reduced);
  void OnApplied(int server, const v1::Applied& applied);
  // With a log: goes on where a server that started again stands, by what its welcome says.
  void Resume(int server, const v1::PeerWelcome& welcome);
  // With a log: a change that earlier coordinators began, with its decision; `applied` says which
  // servers have acted on it. In the order of versions, before any Start.
  void Settle(std::unique_ptr<Change> change, std::vector<bool> applied);
  // With a log: a decision of an earlier coordinator that all servers have acted on. Before Settle.
  void Remember(const v1::Commit& commit);
  // Drops on all servers what is prepared and not decided there.
  void AbortAll();
  // A server has the decisions under this ballot and lower ones on its disk.
  void OnSynced(int server, const v1::Ballot& ballot);
  // So have all.
  v1::Ballot settled() const;

  // Ends everything in flight with `status`; what servers answer later is ignored.
  void FailAll(const absl::Status& status);
  // The version that stands on all servers, when something else than the pipeline sets it (create,
  // delete).
  void SetCommitted(uint64_t version) { committed_ = version; }

  uint64_t committed() const { return committed_; }
  // The version of the last commit sent; a hold sent now is a hold of it.
  uint64_t decided() const;
  bool empty() const { return changes_.empty(); }
  // All servers have answered what was prepared last.
  bool prepared() const;
  // Whether a step of this trainer rank, made by another session, is on its way.
  bool HasStepOf(int trainer_rank, uint64_t other_than_session) const;
  size_t size() const { return changes_.size(); }
  // The servers whose answer the oldest change waits for.
  std::vector<int> WaitingFor() const;
  const std::deque<std::unique_ptr<Change>>& changes() const { return changes_; }

 private:
  void SendPrepare(Change* change);
  void SendPrepareTo(int server, const Change& change);
  void DecideWhatCanBe();
  // Sends a verdict to the servers, or the next round of sums that it needs.
  void Continue(Change* change, Verdict verdict);
  void SendReduceTo(int server, const Change& change);
  void EndRound(Change* change);
  void SendCommit(const Change& change);
  void SendCommitTo(int server, const v1::Commit& commit);
  // Aborts a change by this verdict, and prepares those behind it again.
  void AbortFrom(size_t position, Verdict verdict);
  void FinishApplied();
  void ForgetSettled();

  const int servers_;
  const uint64_t incarnation_;
  const Outside outside_;
  uint64_t committed_ = 0;
  uint64_t attempt_ = 0;
  std::deque<std::unique_ptr<Change>> changes_;
  // By server.
  std::vector<v1::Ballot> synced_;
  // Of changes that all servers have acted on and not all have on their disks.
  std::deque<v1::Commit> finished_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_CHANGE_PIPELINE_H_
