// ShardHost: one optimizer on one server. It owns the shards, their optimizer state, the pushes
// that wait and the versions that are held, and executes the coordinator's messages
// (proto/shardstep/v1/peer.proto) in their order.
//
// Life of a step here: pushes arrive (BeginPush .. EndPush); Prepare measures their sum on the
// executor, logs it (durability "wal") and answers; Commit logs the decision, runs the update,
// which forms the sum, on the executor, takes the hold that came with it, and answers Applied.
// Where the optimizer needs sums over all shards, each Reduce between them runs a round of the
// update, which changes nothing yet (shard_host_rounds.cc). The next message is taken up only then,
// so whatever stands behind a commit sees its version; only that a prepared change reaches the disk
// is not waited for, so that several travel in one sync.
//
// With "wal" a host that starts again replays its log (shard_host_recovery.cc) before it answers
// anybody, and stands where it died: its coordinator sends what is missing.
#ifndef SHARDSTEP_SERVER_SHARD_HOST_H_
#define SHARDSTEP_SERVER_SHARD_HOST_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/optim/local_optimizer.h"
#include "shardstep/optim/shard_sums.h"
#include "shardstep/server/catalog.h"
#include "shardstep/server/chain_hash.h"
#include "shardstep/server/checkpoint_store.h"
#include "shardstep/server/committed_calls.h"
#include "shardstep/server/durability.h"
#include "shardstep/server/errors.h"
#include "shardstep/server/executor.h"
#include "shardstep/server/held_version.h"
#include "shardstep/server/layout.h"
#include "shardstep/server/log_queue.h"
#include "shardstep/server/memory_budget.h"
#include "shardstep/server/message_log.h"
#include "shardstep/server/prepared_step.h"
#include "shardstep/server/push_table.h"
#include "shardstep/server/reply.h"
#include "shardstep/server/serializer.h"
#include "shardstep/server/staging.h"
#include "shardstep/server/write_ahead_log.h"
#include "shardstep/v1/coordinator.pb.h"
#include "shardstep/v1/frame.pb.h"
#include "shardstep/v1/peer.pb.h"
#include "shardstep/v1/shards.pb.h"
#include "shardstep/wire/pages.h"

namespace shardstep {

// What all shard hosts of a server share. Everything must outlive them.
struct ShardHostEnvironment {
  int server_rank = 0;
  uint64_t incarnation = 0;
  uint32_t numeric_fingerprint = 0;
  Durability durability = Durability::kNone;
  int64_t log_bytes = 0;  // see NodeOptions
  Executor* executor = nullptr;
  // Where checkpoints and bases are read and written, beside the tensor work.
  Executor* disk = nullptr;
  // Where logs are written.
  Executor* log = nullptr;
  FileSystem* files = nullptr;
  Catalog* catalog = nullptr;
  CheckpointStore* checkpoints = nullptr;
  MemoryBudget* shard_memory = nullptr;
  MemoryBudget* push_memory = nullptr;
  MemoryBudget* snapshot_memory = nullptr;
  // See NodeEnvironment.
  std::function<void(const absl::Status&)> fatal;
};

// A write into a staging, while it arrives.
struct StagedWrite {
  StagedWrite(std::shared_ptr<const Layout> layout, MemoryBudget* budget)
      : assembly(std::make_shared<Assembly>(std::move(layout), budget,
                                            Assembly::Takes::kParametersAndState)) {}
  uint64_t staging = 0;
  uint64_t session = 0;
  std::shared_ptr<Assembly> assembly;
};

// Thread-safe: every method may be called from any thread and does not block; replies come from any
// thread. Made by std::make_shared.
class ShardHost : public std::enable_shared_from_this<ShardHost> {
 public:
  using Send = std::function<void(std::vector<v1::PeerReply>)>;

  // What the catalog knew of the optimizer at start, if it did: its shards are lost then, unless
  // Recover finds them in a log.
  ShardHost(std::string optimizer, const ShardHostEnvironment& environment,
            const v1::CatalogEntry* found, const v1::FenceEntry* fences);

  // Replays the log, in the background; streams of the coordinator wait for it. Once, at start.
  void Recover();

  // A stream of the coordinator begins: `send` gets the replies from now on, first the welcome,
  // then those that the coordinator has not received, those of one task together.
  // FAILED_PRECONDITION if its incarnation is older than one seen before: another server has taken
  // the coordinator's place.
  void Connect(const v1::PeerHello& hello, Send send, std::function<void(absl::Status)> done);
  // Messages of a stream, what arrived together; ignored unless they come from the coordinator that
  // is followed.
  void Receive(uint64_t coordinator_incarnation, std::vector<v1::PeerMessage> messages);

  // A push opens, its frames go to push->assembly on the stream's thread (unless push->repeat), and
  // it ends.
  void BeginPush(v1::Begin begin, Reply<std::shared_ptr<Push>> reply);
  void EndPush(std::shared_ptr<Push> push, v1::End end, std::function<void(absl::Status)> done);

  // The same for what a change brings along. A null write: this session's write is here already.
  void BeginWrite(v1::WriteBegin begin, Reply<std::shared_ptr<StagedWrite>> reply);
  void EndWrite(std::shared_ptr<StagedWrite> write, v1::End end, Reply<v1::WriteStateReply> reply);

  // ABORTED SNAPSHOT_GONE if the snapshot is not held here.
  void OpenRead(v1::CallHeader header, uint64_t snapshot,
                Reply<std::shared_ptr<const HeldVersion>> reply);

  // Writes the current version into the catalog if it changed since the last note. `done` gets the
  // disk's answer.
  void NoteVersion(std::function<void(absl::Status)> done);

  // Where it stands: the version's place in its history, for tests.
  struct Standing {
    bool live = false;
    uint64_t lineage = 0;
    uint64_t version = 0;
    uint64_t chain_hash = 0;
  };
  void GetStanding(std::function<void(Standing)> done);

 private:
  struct PreparedChange {
    // Never null in prepared_. Shared with whoever acts on it: a continuation is copied with all
    // that it holds.
    std::shared_ptr<const v1::Prepare> request;
    v1::Prepared answer;
    // Of its record in the log; 0: not there.
    std::shared_ptr<uint64_t> lsn = std::make_shared<uint64_t>(0);
    // One of these, or none: a delete. A staged change that was logged and not yet read again has
    // its file only.
    std::shared_ptr<shardstep::PreparedStep> step;
    std::optional<LocalOptimizer> staged;
    std::string staged_file;
    std::shared_ptr<const Layout> layout;
    // The plan goes on: parameters were added to it at most.
    bool extends = false;
    uint64_t lineage = 0;
    std::string checkpoint_id;  // that it was filled from
    std::vector<MemoryBudget::Reservation> reservations;
  };

  struct Connecting {
    v1::PeerHello hello;
    Send send;
    std::function<void(absl::Status)> done;
  };

  bool wal() const { return env_.durability == Durability::kWal; }
  OptimizerFacts Facts() const;
  // Whether there is a live optimizer and the header believes the truth about it.
  absl::Status CheckLive(const v1::CallHeader& header) const;

  // Message execution. `Execute` ends in Done(), perhaps later and from the executor.
  void Pump();
  void Execute(v1::PeerMessage message);
  void Done();
  // Runs body(0..count-1) on the executor, or here if it is next to nothing, then `done` in the
  // serializer.
  void RunBlocks(int64_t elements, size_t count, std::function<void(size_t)> body,
                 std::function<void()> done);
  // Runs `work`, which may block on the disk, on the executor, then `done` in the serializer.
  void RunBlocking(Executor* executor, std::function<absl::Status()> work,
                   std::function<void(absl::Status)> done);
  v1::Description DescriptionNow() const;
  v1::CatalogEntry CatalogEntryNow() const;

  // The coordinator's stream (shard_host_stream.cc).
  void PumpConnecting();
  void FinishConnecting(const Connecting& connecting);
  void Welcome(v1::PeerWelcome* welcome) const;
  // All servers have the decisions under this ballot and lower ones.
  void ForgetDecided(const v1::Ballot& settled);
  void Answer(v1::PeerReply reply);
  // Once the tasks handed in so far are done, all answers go out.
  void Flush();
  v1::FenceEntry FencesNow() const;
  // Blocks.
  absl::Status WriteFences(const v1::FenceEntry& fences) const;
  void OnSessions(const v1::AnnounceSessions& sessions);
  // Writes the announced sessions and answers them.
  void KeepSessions(std::function<void()> done);

  // What a change brings along (shard_host_staging.cc).
  void OnStage(const v1::Stage& stage);
  absl::Status BeginStaging(uint64_t staging);
  void ReportStaging();
  void ReportStagingError(uint64_t staging, const absl::Status& error);
  void PrepareStaged(std::shared_ptr<const v1::Prepare> prepare);
  absl::StatusOr<PreparedChange> BuildStaged(std::shared_ptr<const v1::Prepare> prepare);
  void CommitStaged(const v1::Commit& commit, PreparedChange change);
  void Adopt(const v1::Commit& commit, PreparedChange* change);

  // Changes of every kind (shard_host_changes.cc).
  void OnPrepare(std::shared_ptr<const v1::Prepare> prepare);
  // Logs what is prepared, if it is to be logged, and answers.
  void KeepPrepared(PreparedChange change);
  void AnswerPrepared(const v1::Prepared& answer);
  void OnCommit(const v1::Commit& commit);
  // Acts on a decision, from a message or from the log.
  void Apply(const v1::Commit& commit);
  // The end of Apply.
  void Applied(const v1::Commit& commit, const absl::Status& error);
  void AnswerApplied(const v1::Commit& commit, const absl::Status& error);
  void CommitDelete(const v1::Commit& commit);
  void Abort(const v1::Commit& commit);
  // Takes a hold of the current version; false if there is no memory for what it may come to cost.
  bool TakeHold(const v1::Hold& hold);
  void OnHold(const v1::Hold& hold);

  // Steps (shard_host_steps.cc).
  void PrepareStep(std::shared_ptr<const v1::Prepare> prepare);
  // The groups' options when a step that is being prepared commits.
  std::vector<OptionMap> OptionsAt(const v1::Prepare& prepare) const;
  void CommitStep(const v1::Commit& commit, PreparedChange change);
  // Those that the step sets, for the steps after it.
  absl::Status SetOptions(const v1::PrepareStep& step);
  void FinishStep(const v1::Commit& commit, const v1::PrepareStep& request);

  // Sums over all shards (shard_host_rounds.cc).
  void OnReduce(const v1::Reduce& reduce);
  // Begins the step of `change`, unless it is under way already, and takes it through the rounds
  // whose totals `decision` has; `done` gets OK when the next round's blocks, or the update's, are
  // to be run.
  void RunRounds(const PreparedChange& change, const v1::Decision& decision,
                 std::function<void(absl::Status)> done);
  absl::Status BeginRounds(const PreparedChange& change, const v1::Decision& decision);
  void NextRound(const v1::Decision& decision, std::function<void(absl::Status)> done);
  // Runs the blocks of the step under way.
  void RunStepBlocks(std::function<void()> done);
  void AbandonRounds();

  // The write-ahead log (shard_host_recovery.cc).
  absl::StatusOr<std::unique_ptr<WriteAheadLog>> OpenLog() const;
  void StartLog(std::unique_ptr<WriteAheadLog> log);
  absl::StatusOr<PreparedChange> FromBase(Base base) const;
  v1::BaseHeader BaseHeaderNow() const;
  // Of the version that a staged change becomes.
  v1::BaseHeader BaseHeaderOf(const PreparedChange& change) const;
  void ReplayNext();
  void Replay(WriteAheadLog::Record record);
  void EndRecovery(const absl::Status& status);
  void WriteBaseWhenDue();
  v1::CoordinatorMemory MemoryNow() const;
  void SetMemory(const v1::CoordinatorMemory& memory);

  // Checkpoints (shard_host_checkpoints.cc).
  void FillFromCheckpoint(const std::string& checkpoint_id);
  void OnReadManifest(const v1::ReadManifest& request);
  void OnBeginCheckpoint(const v1::BeginCheckpoint& request);
  void OnWriteCheckpoint(const v1::WriteCheckpoint& request);
  void OnFinishCheckpoint(const v1::FinishCheckpoint& request);
  void OnNoteCheckpoint(const v1::NoteCheckpoint& note);
  // Runs `work`, which makes a reply, beside the messages.
  void RunOnDisk(std::function<v1::PeerReply()> work);
  // Tells the coordinator how far it is, now and then.
  std::function<void(int64_t done, int64_t total)> Progress(v1::FileProgress what);
  // Drops everything but the knowledge that it is lost, and since which server's restart. The log
  // stays.
  void LoseShards(int server, absl::string_view because = {});
  void DropOptimizer();

  const std::string name_;
  const ShardHostEnvironment env_;
  Serializer serializer_;

  // All below: inside the serializer only.
  Send send_;
  std::vector<Connecting> connecting_;
  uint64_t coordinator_incarnation_ = 0;
  Inbox inbox_;
  Outbox<v1::PeerReply> outbox_;
  bool flushing_ = false;
  std::deque<v1::PeerMessage> queue_;
  bool busy_ = false;

  std::shared_ptr<const Layout> layout_;  // null: no live optimizer
  std::optional<LocalOptimizer> optimizer_;
  std::vector<MemoryBudget::Reservation> shard_reservations_;
  uint64_t lineage_ = 0;
  uint64_t version_ = 0;
  uint64_t noted_version_ = 0;
  std::optional<int> lost_by_;  // the server whose restart lost the shards
  std::string lost_because_;
  std::string last_checkpoint_;
  uint64_t chain_hash_ = kEmptyChain;

  // By trainer rank, as last announced.
  std::map<int, v1::AnnounceSessions::Session> announced_;
  // Announced and not answered: the disk did not take them.
  std::vector<uint64_t> unanswered_sessions_;
  PushTable pushes_;
  PageCollector staging_pages_;
  std::optional<Staging> staging_;
  std::map<uint64_t, PreparedChange> prepared_;  // by version
  // The step under way in the optimizer, between messages: only one that needs rounds of sums.
  struct Rounds {
    v1::Ballot ballot;
    // Whose totals it has taken.
    int taken = 0;
    // What this server contributed to the round after those, once its blocks were run.
    std::optional<std::vector<ShardSums>> sums;
  };
  std::optional<Rounds> rounds_;
  // Acted on, by version; of those, the ones that other servers may lack.
  v1::Ballot last_decided_;
  std::deque<v1::Commit> decided_;
  v1::Ballot settled_;
  std::map<uint64_t, std::shared_ptr<const HeldVersion>> holds_;  // by snapshot

  // Null without "wal", and while nothing was ever staged.
  std::shared_ptr<LogQueue> log_;
  std::unique_ptr<WriteAheadLog> replayed_;  // while it recovers
  bool recovering_ = false;
  bool writing_base_ = false;
  std::function<void()> after_base_;
  v1::Ballot synced_;
  // On the coordinator's server only.
  CommittedCalls calls_;
  v1::CoordinatorMemory memory_;  // the rest of it
};

}  // namespace shardstep

#endif  // SHARDSTEP_SERVER_SHARD_HOST_H_
