// Coordinator: puts the changes of one optimizer in order, on the server that is its coordinator.
//
// Life of a step: Step calls wait in `waiting_` until the mode is satisfied (all trainer ranks, or
// any one); a Change goes into the ChangePipeline, which prepares, decides and commits it on all
// servers; when all have applied it, the replies are recorded and given. Every other change waits
// until the pipeline is empty and travels alone; one that brings values is staged on all servers
// before. Sources: coordinator.cc (peers, leases) and coordinator_<part>.cc.
#ifndef SHARDSTEP_SERVER_COORDINATOR_H_
#define SHARDSTEP_SERVER_COORDINATOR_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shardstep/optim/options/param_group.h"
#include "shardstep/server/caller.h"
#include "shardstep/server/change_pipeline.h"
#include "shardstep/server/checkpointer.h"
#include "shardstep/server/clock.h"
#include "shardstep/server/committed_calls.h"
#include "shardstep/server/durability.h"
#include "shardstep/server/errors.h"
#include "shardstep/server/layout.h"
#include "shardstep/server/message_log.h"
#include "shardstep/server/reply.h"
#include "shardstep/server/serializer.h"
#include "shardstep/server/sessions.h"
#include "shardstep/server/snapshots.h"
#include "shardstep/v1/catalog.pb.h"
#include "shardstep/v1/coordinator.pb.h"
#include "shardstep/v1/peer.pb.h"
#include "shardstep/wire/optimizer_definition.h"
#include "shardstep/wire/pages.h"

namespace shardstep {

struct CoordinatorEnvironment {
  int servers = 0;
  uint64_t incarnation = 0;
  // Of this object: above every earlier one's of the same fleet, so that the numbers it gives are
  // never given again. Stands as coordinator_incarnation in what it sends.
  uint64_t start = 0;
  const Clock* clock = nullptr;  // must outlive the coordinator
  absl::Duration lease;
  uint32_t numeric_fingerprint = 0;
  Durability durability = Durability::kNone;
  // With durability "checkpoint": a new version is checkpointed when this has passed since the last
  // time; absent: as often as keeps the time it takes below 3.5 % of all (CheckFreq's bound, Mohan
  // et al., FAST 2021).
  std::optional<absl::Duration> checkpoint_interval;
  // See NodeEnvironment.
  std::function<void(const absl::Status&)> fatal;
};

// Thread-safe: every method may be called from any thread and does not block; replies come from any
// thread. Made by std::make_shared. Needs Tick() a few times a second.
class Coordinator : public std::enable_shared_from_this<Coordinator> {
 public:
  using Send = std::function<void(std::vector<v1::PeerMessage>)>;
  struct CalledStep {
    v1::StepRequest request;
    Caller caller;
    Reply<v1::StepReply> reply;
  };

  // `found`: what this server's catalog knew of the optimizer at start; its shards are lost then.
  Coordinator(std::string name, const CoordinatorEnvironment& environment,
              const v1::CatalogEntry* found);
  // Calls that wait get UNAVAILABLE.
  ~Coordinator();

  // A stream to `server` stands: `send` gets the hello and, after the welcome, all messages, those
  // of one task together. Replies come back by OnPeerReplies, what arrived together. After
  // DisconnectPeer `send` is not called any more (from the next task on).
  void ConnectPeer(int server, Send send);
  void DisconnectPeer(int server);
  void OnPeerReplies(int server, std::vector<v1::PeerReply> replies);
  // `server` follows another coordinator, with a higher incarnation: this process has no part in
  // the fleet any more, and ends.
  void OnSuperseded(int server, const absl::Status& status);

  // The calls of proto/shardstep/v1/coordinator.proto.
  void OpenSession(v1::OpenSessionRequest request, Caller caller,
                   Reply<v1::OpenSessionReply> reply);
  void RenewSession(v1::RenewSessionRequest request, Reply<v1::RenewSessionReply> reply);
  void CloseSession(v1::CloseSessionRequest request, Reply<v1::CloseSessionReply> reply);
  void ListSessions(Reply<v1::ListSessionsReply> reply);
  void Propose(v1::ProposeRequest request, Caller caller, Reply<v1::ProposeReply> reply);
  void Describe(v1::DescribeRequest request, Reply<v1::DescribeReply> reply);
  // One entry of ListOptimizers; NOT_FOUND if there is nothing to list.
  void Summarize(Reply<v1::ListOptimizersReply::Optimizer> reply);
  // Those that came together start together, where they can.
  void Step(std::vector<CalledStep> called);
  void Step(v1::StepRequest request, Caller caller, Reply<v1::StepReply> reply);
  void StepStatus(v1::StepStatusRequest request, Reply<v1::StepStatusReply> reply);
  void OpenSnapshot(v1::OpenSnapshotRequest request, Caller caller,
                    Reply<v1::OpenSnapshotReply> reply);
  void RenewSnapshot(v1::RenewSnapshotRequest request, Reply<v1::RenewSnapshotReply> reply);
  void CloseSnapshot(v1::CloseSnapshotRequest request, Reply<v1::CloseSnapshotReply> reply);
  void Checkpoint(v1::CheckpointRequest request, Caller caller, Reply<v1::CheckpointReply> reply);

  // Judges leases, answers calls whose time has come.
  void Tick();
  // Nothing happened since a Tick found that there was neither an optimizer nor a session for as
  // long as a lease, so this object can go once nobody else holds it.
  bool idle() const { return idle_; }
  // Ends every waiting call with UNAVAILABLE, and every later one that would wait.
  void Drain();

 private:
  // kRecovering: with a log, until all servers have said where they stand.
  enum class State { kRecovering, kAbsent, kCreating, kLive, kLost };

  struct Link {
    Send send;
    bool welcomed = false;
    // The last one, while the coordinator recovers.
    std::optional<v1::PeerWelcome> welcome;
    uint64_t incarnation = 0;
    Inbox inbox;
    Outbox<v1::PeerMessage> outbox;
  };
  struct OpeningSession {
    uint64_t session = 0;
    Caller caller;
    Reply<v1::OpenSessionReply> reply;
  };
  struct StepCall {
    uint64_t session = 0;
    int trainer_rank = 0;
    uint64_t sequence = 0;
    v1::StepRequest request;
    std::string fingerprint;
    Caller caller;
    Reply<v1::StepReply> reply;  // empty: nobody waits; a repeat may attach
    bool in_pipeline = false;
  };
  using StepCallPtr = std::shared_ptr<StepCall>;
  struct Proposer {
    uint64_t session = 0;  // 0: an operator
    uint64_t staged = 0;
    Caller caller;
    Reply<v1::ProposeReply> reply;
  };
  // A change that brings values, from its proposal to its commit.
  struct Staged {
    enum class Kind { kCreate, kAddParamGroup, kLoad, kRestore };
    Kind kind = Kind::kCreate;
    std::string key;       // equal proposals have equal ones, and join
    uint64_t staging = 0;  // 0: the checkpoint's manifest is being read
    v1::StagedChange change;
    PagedMessage description;  // of change.description
    OptimizerDefinition definition;
    std::vector<ParamGroup> groups;
    uint64_t version = 0;            // that it becomes
    uint64_t whole_session = 0;      // writes the whole tensors
    std::vector<bool> regions_from;  // by parameter: sessions that declared regions write them
    std::set<int> unaware;           // servers that have not opened the staging
    std::set<int> incomplete;        // servers that lack values
    std::set<uint64_t> handed;       // sessions that it was handed to
    std::vector<Proposer> proposers;
    bool preparing = false;
    // Of a load or restore.
    v1::RollBack::Cause cause = v1::RollBack::CAUSE_UNSPECIFIED;
    bool strict = true;
    bool sets_trainers = false;
    std::vector<v1::TrainerState> trainers;
    uint64_t last_session = 0;
    uint64_t replaced_lineage = 0;
    uint64_t manifest_request = 0;
    v1::ProposeReply::Done report;  // names that differ, parameters placed anew
    std::map<int, v1::FileProgress> progress;
  };
  // The last load or restore, so that a repeat of it is seen.
  struct Rewind {
    std::string key;
    v1::RollBack::Cause cause = v1::RollBack::CAUSE_UNSPECIFIED;
    v1::ProposeReply::Done report;
  };
  // A change that is committed, and acknowledged when a checkpoint contains it.
  struct Uncovered {
    Caller caller;
    Reply<v1::ProposeReply> reply;
    v1::ProposeReply done;
  };
  struct SnapshotWaiter {
    uint64_t lineage = 0;  // that the reader believes in; 0 = any
    uint64_t at_least = 0;
    v1::SnapshotKind kind = v1::PARAMETERS;
    Caller caller;
    Reply<v1::OpenSnapshotReply> reply;
  };
  struct PendingHold {
    uint64_t version = 0;
    v1::SnapshotKind kind = v1::PARAMETERS;
    std::set<int> unanswered;
    bool held = true;
    std::vector<SnapshotWaiter> readers;
  };

  bool wal() const { return env_.durability == Durability::kWal; }
  void Run(std::function<void()> task);
  OptimizerFacts Facts() const;
  // OK if the optimizer is live and the header believes the truth about it. ROLLED_BACK says where
  // the header's trainer goes on.
  absl::Status CheckLive(const v1::CallHeader& header);
  absl::Status RolledBack(int trainer_rank);
  // The live session of the header, its lease renewed.
  absl::StatusOr<Session*> FindSession(const v1::CallHeader& header);

  // coordinator.cc
  void SendTo(int server, v1::PeerMessage message);
  void Broadcast(const v1::PeerMessage& message);
  // Once the tasks handed in so far are done, all that was sent goes out.
  void Flush();
  void SendUnsent(Link* link);
  void OnPeerReply(int server, const v1::PeerReply& reply);
  void OnWelcome(int server, const v1::PeerWelcome& welcome);
  // What a server that restarted takes with it in any case.
  void OnRestart(int server, const absl::Status& again);
  void Lose(int server, uint64_t version, std::string because = {});
  // Why there is nothing to be had: UNAVAILABLE while all return to a checkpoint.
  absl::Status LostStatus() const;
  void Announce(const std::vector<const Session*>& sessions);
  void AnnounceAll();
  // It is open once every server knows it.
  void AwaitAll(Session* session);
  void OnSessionsKnown(int server, const v1::SessionsKnown& known);
  void AnswerOpenSessions();
  v1::ListSessionsReply SessionList();
  void FailAllCalls(const absl::Status& status);
  // Ends what a session that is replaced, closed or lapsed had open.
  void EndSession(uint64_t session, const absl::Status& status);

  // coordinator_recovery.cc
  absl::Status Recovering() const;
  void RecoverWhenAllAreThere();
  // The servers' histories, if they are of one piece; else what is wrong, and with which server.
  absl::Status CheckWelcomes(int* server) const;
  void Recall(const v1::PeerWelcome& own);
  void SettleInDoubt();
  bool SettleDelete();
  void AskStanding();
  // UNAVAILABLE: not every server is connected and has said where it stands.
  absl::Status CheckAllThere() const;
  // Durability "checkpoint": all servers go back to the last one.
  void ReturnWhenAllAreThere();

  // coordinator_step_calls.cc
  void OnStep(CalledStep called);
  absl::Status CheckStep(const v1::StepRequest& request, const Session& session) const;
  void Accept(const StepCallPtr& call);
  void AcceptEarly();
  void FailCall(const StepCallPtr& call, const absl::Status& status);
  void FailWaiting(const absl::Status& status);
  v1::StepReply WaitingReply(const StepCall& call);
  void AnswerWaitingSteps(absl::Time now);
  // A recorded reply, with what is durable by now.
  v1::StepReply::Committed Again(const v1::StepReply::Committed& recorded) const;

  // coordinator_steps.cc
  // The trainer ranks whose lease is lapsed and that a synchronous step needs.
  std::vector<int> LostParticipants();
  void PumpSteps();
  // Steps that may be on their way at once.
  size_t MaxInFlight() const;
  bool FailUnequalOptions(const std::vector<StepCallPtr>& calls);
  void StartStep(std::vector<StepCallPtr> calls);
  // `note`: the calls' outcome is not recorded yet.
  void FinishStep(const Change& change, const std::vector<StepCallPtr>& calls,
                  const absl::Status& status, bool note);

  // coordinator_changes.cc
  // The whole message once all its pages are there; else the reply was given.
  std::optional<std::string> Collect(const v1::Page& page, const Reply<v1::ProposeReply>& reply);
  void ProposeCreate(const v1::ProposeRequest& request, Caller caller,
                     Reply<v1::ProposeReply> reply);
  // Whether what a deletion is about stands.
  absl::Status CheckDeleted(const v1::CallHeader& header) const;
  void ProposeDelete(const v1::CallHeader& header, Reply<v1::ProposeReply> reply);
  void Delete(const v1::CallHeader& header, Reply<v1::ProposeReply> reply);
  // There is no such optimizer.
  void Forget();
  absl::StatusOr<std::unique_ptr<Staged>> MakeCreation(const v1::OptimizerDefinition& proposed);
  absl::Status CheckPlan(const OptimizerDefinition& definition, const Plan& plan) const;
  // The definition as it was created.
  OptimizerDefinition CreatedDefinition() const;
  // The definition as the layout describes it; an empty one without optimizer.
  const v1::OptimizerDefinition& Described() const;
  v1::ProposeReply DoneReply() const;
  absl::Status Busy() const;
  bool Covered() const;
  void AnswerWhenCovered(Caller caller, Reply<v1::ProposeReply> reply, v1::ProposeReply done);
  void AnswerUncovered(absl::Time now, const absl::Status& failed);
  // Runs `change` when nothing else is on its way.
  void RunAlone(std::function<void()> change);
  void PumpAlone();

  // coordinator_staging.cc
  // Completes the description and sends it to all servers.
  absl::Status OpenStaging(Staged* staged, const Plan& plan, size_t created_groups);
  void OnStagingState(int server, const v1::StagingState& state);
  void OnFileProgress(int server, const v1::FileProgress& progress);
  void AnswerProposers(absl::Time now);
  void DropStaged(const absl::Status& status);
  void PrepareStaged();
  void FinishStaged(std::shared_ptr<const Layout> layout, uint64_t lineage);
  // What there is to remember once it is committed.
  CommittedCalls CallsAfter(const Staged& staged) const;
  v1::CoordinatorMemory MemoryAfter(const Staged& staged, uint64_t lineage) const;

  // coordinator_loads.cc
  void ProposeAddParamGroup(const v1::ProposeRequest& request, Caller caller,
                            Reply<v1::ProposeReply> reply);
  absl::StatusOr<std::unique_ptr<Staged>> MakeAddition(const v1::AddParamGroupChange& proposed,
                                                       bool* stands);
  void ProposeLoad(const v1::ProposeRequest& request, Caller caller, Reply<v1::ProposeReply> reply);
  void ProposeRestore(const v1::ProposeRequest& request, Caller caller,
                      Reply<v1::ProposeReply> reply);
  // Joins the change under way, or is answered. False: it is no repeat.
  bool JoinRewind(const std::string& key, const Proposer& proposer);
  // `lineage`: the newest checkpoint of it, if there is one, instead.
  void ReadManifest(const std::string& checkpoint_id, uint64_t lineage = 0);
  void OnManifestRead(const v1::ManifestRead& read);
  absl::Status BeginLoad(Staged* staged, const v1::LoadChange& load);
  absl::Status MatchTensors(const v1::LoadChange& load, Staged* staged) const;
  absl::Status MatchGroups(const v1::LoadChange& load, Staged* staged) const;
  absl::Status BeginRestore(Staged* staged, const v1::CheckpointFacts& facts);
  // Ends what the replaced lineage had open.
  void RollBack();

  // coordinator_snapshots.cc
  void ServeSnapshotWaiters();
  void AnswerPendingHolds(absl::Time now);
  void TakeHold(std::vector<SnapshotWaiter> readers);
  void OnHoldTaken(int server, const v1::HoldTaken& taken);
  v1::Snapshot SnapshotMessage(uint64_t id, uint64_t version, v1::SnapshotKind kind) const;
  void CloseSnapshotNumber(uint64_t snapshot);
  void Release(std::vector<uint64_t> snapshots);
  void FailSnapshotWaiters(const absl::Status& status);
  absl::Status SnapshotGone(uint64_t snapshot) const;
  SnapshotFacts SnapshotFactsNow(v1::SnapshotKind kind) const;
  v1::Description DescriptionOf(const SnapshotFacts& facts) const;
  v1::CheckpointFacts CheckpointFactsNow() const;
  void OnCheckpointEnd(const absl::StatusOr<v1::CheckpointFacts>& ended);
  void CheckpointWhenDue(absl::Time now);
  void NoteCheckpoint(const std::string& checkpoint_id, uint64_t version);
  uint64_t durable_version() const;

  const std::string name_;
  const CoordinatorEnvironment env_;
  std::atomic<bool> idle_{false};
  Serializer serializer_;

  // All below: inside the serializer only.
  absl::Time last_needed_;
  State state_ = State::kAbsent;
  bool draining_ = false;
  int lost_by_ = 0;
  uint64_t lost_version_ = 0;
  std::string lost_because_;
  // There is no checkpoint to return to; there was none the last time.
  bool no_return_ = false;
  bool failed_return_ = false;
  absl::Time next_return_ = absl::InfinitePast();
  uint64_t lineage_ = 0;
  uint64_t last_lineage_ = 0;
  uint64_t last_staging_ = 0;
  std::vector<Link> links_;
  bool flushing_ = false;

  SessionTable sessions_;
  CommittedCalls calls_;
  std::vector<OpeningSession> opening_;

  // Of the live optimizer, as of the committed version.
  std::shared_ptr<const Layout> layout_;
  OptimizerDefinition definition_;
  std::string definition_digest_;
  std::shared_ptr<const std::vector<ParamGroup>> groups_;
  PagedMessage description_;
  bool description_stale_ = true;

  ChangePipeline pipeline_;
  std::deque<std::function<void()>> alone_;
  std::deque<StepCallPtr> waiting_;
  std::vector<StepCallPtr> early_;
  std::map<std::pair<uint64_t, uint64_t>, StepCallPtr> open_;  // by session and sequence
  std::map<std::string, PageCollector> proposals_;             // by digest
  std::unique_ptr<Staged> staged_;
  Rewind last_rewind_;
  uint64_t parent_lineage_ = 0;

  SnapshotTable snapshots_;
  std::vector<SnapshotWaiter> snapshot_waiters_;
  std::map<uint64_t, PendingHold> pending_holds_;  // by snapshot

  Checkpointer checkpointer_;
  uint64_t lineage_ordinal_ = 0;  // 0: this lineage has no checkpoint yet
  std::string last_checkpoint_;
  // The version of this lineage's last checkpoint.
  std::optional<uint64_t> durable_;
  // Changes that are no steps are durable once this version is.
  uint64_t cover_from_ = 0;
  absl::Time next_checkpoint_ = absl::InfinitePast();
  absl::Time checkpoint_began_ = absl::InfinitePast();
  std::vector<Uncovered> uncovered_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_COORDINATOR_H_
