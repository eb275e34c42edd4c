// A coordinator that starts: with durability "wal" it settles what earlier ones left in doubt; with
// "checkpoint" it takes all servers back to the last checkpoint, as it does after any server's
// death.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "shardstep/server/ballot.h"
#include "shardstep/server/coordinator.h"
#include "shardstep/server/faults.h"
#include "shardstep/wire/definition.h"

namespace shardstep {
namespace {

constexpr absl::Duration kReturnAgain = absl::Seconds(2);

using InDoubt = v1::PeerWelcome::InDoubt;

// What `welcome` has in doubt under this ballot, or null.
const InDoubt* FindInDoubt(const v1::PeerWelcome& welcome, const v1::Ballot& ballot) {
  for (const InDoubt& in_doubt : welcome.in_doubt()) {
    if (SameBallot(in_doubt.answer().ballot(), ballot)) return &in_doubt;
  }
  return nullptr;
}

bool Standing(const v1::PeerWelcome& welcome) {
  return welcome.lineage() != 0 && !welcome.shards_lost();
}

}  // namespace

absl::Status Coordinator::Recovering() const {
  std::vector<int> missing;
  for (int server = 0; server < env_.servers; ++server) {
    if (!links_[server].welcome.has_value()) missing.push_back(server);
  }
  return absl::UnavailableError(absl::StrCat("optimizer \"", name_,
                                             "\": recovers, waiting for server ",
                                             absl::StrJoin(missing, ", server ")));
}

void Coordinator::AskStanding() {
  state_ = State::kRecovering;
  for (Link& link : links_) link.welcome.reset();
  v1::PeerMessage message;
  message.mutable_ask_standing();
  Broadcast(message);
}

void Coordinator::RecoverWhenAllAreThere() {
  for (const Link& link : links_) {
    if (!link.welcome.has_value()) return;
  }
  SHARDSTEP_PASS("coordinator.recovers");
  Forget();
  int server = 0;
  const absl::Status whole = CheckWelcomes(&server);
  if (!whole.ok()) {
    lineage_ = links_[server].welcome->lineage();
    last_checkpoint_ = links_[server].welcome->last_checkpoint();
    Lose(server, links_[server].welcome->noted_version(), std::string(whole.message()));
  } else if (!SettleDelete()) {
    const v1::PeerWelcome& own = *links_[kCoordinatorRank].welcome;
    if (Standing(own)) Recall(own);
    SettleInDoubt();
  }
  SHARDSTEP_PASS("coordinator.recovered");
  AnswerOpenSessions();
  PumpAlone();
}

absl::Status Coordinator::CheckWelcomes(int* server) const {
  bool standing = false;
  for (*server = 0; *server < env_.servers; ++*server) {
    const v1::PeerWelcome& welcome = *links_[*server].welcome;
    standing = standing || Standing(welcome);
    if (welcome.shards_lost()) return absl::DataLossError(welcome.lost_because());
  }
  // The histories of two servers at one version are one.
  for (*server = 1; *server < env_.servers; ++*server) {
    const v1::PeerWelcome& welcome = *links_[*server].welcome;
    for (int other = 0; other < *server; ++other) {
      const v1::PeerWelcome& known = *links_[other].welcome;
      if (Standing(welcome) && Standing(known) && welcome.lineage() == known.lineage() &&
          welcome.committed_version() == known.committed_version() &&
          welcome.chain_hash() != known.chain_hash()) {
        return absl::DataLossError(absl::StrCat("servers ", other, " and ", *server,
                                                " came to version ", welcome.committed_version(),
                                                " by different steps"));
      }
    }
  }
  // Whatever one server has acted on, every other has acted on or has prepared.
  for (const Link& link : links_) {
    for (const v1::Commit& commit : link.welcome->decided()) {
      for (*server = 0; *server < env_.servers; ++*server) {
        const v1::PeerWelcome& welcome = *links_[*server].welcome;
        if (BallotLess(welcome.last_decided(), commit.ballot()) &&
            FindInDoubt(welcome, commit.ballot()) == nullptr &&
            (Standing(welcome) || !welcome.in_doubt().empty())) {
          return absl::DataLossError(
              absl::StrCat("its log lacks version ", commit.version(), ", which was decided"));
        }
      }
    }
  }
  const auto deletes = [](const Link& link) {
    return std::any_of(link.welcome->in_doubt().begin(), link.welcome->in_doubt().end(),
                       [](const InDoubt& in_doubt) { return in_doubt.request().has_delete_(); });
  };
  for (*server = 0; standing && *server < env_.servers; ++*server) {
    const v1::PeerWelcome& welcome = *links_[*server].welcome;
    if (Standing(welcome) || !welcome.in_doubt().empty()) continue;
    // Gone here: it was deleted, if the others were about to delete it.
    for (const Link& link : links_) {
      if (Standing(*link.welcome) && !deletes(link)) {
        return absl::DataLossError("its data directory has nothing of the optimizer");
      }
    }
  }
  return absl::OkStatus();
}

bool Coordinator::SettleDelete() {
  std::vector<bool> applied;
  const InDoubt* prepared = nullptr;
  for (const Link& link : links_) {
    applied.push_back(!Standing(*link.welcome) && link.welcome->in_doubt().empty());
    for (const InDoubt& in_doubt : link.welcome->in_doubt()) {
      if (in_doubt.request().has_delete_()) prepared = &in_doubt;
    }
  }
  if (prepared == nullptr || std::count(applied.begin(), applied.end(), true) == 0) return false;
  auto change = std::make_unique<Change>();
  change->request = prepared->request();
  change->verdict.emplace();
  change->verdict->decision.set_outcome(v1::Decision::COMMIT);
  change->finished = [this](const Change&, const absl::Status& status) {
    if (status.ok()) AskStanding();
  };
  state_ = State::kRecovering;
  pipeline_.Settle(std::move(change), std::move(applied));
  return true;
}

void Coordinator::Recall(const v1::PeerWelcome& own) {
  auto layout = Layout::Make(own.description(), kCoordinatorRank);
  auto described = DescriptionFromProto(own.description());
  if (!layout.ok() || !described.ok()) {
    return Lose(kCoordinatorRank, own.committed_version(),
                std::string((layout.ok() ? described.status() : layout.status()).message()));
  }
  const v1::CoordinatorMemory& memory = own.memory();
  state_ = State::kLive;
  layout_ = *std::move(layout);
  definition_ = std::move(described->definition);
  groups_ = std::make_shared<const std::vector<ParamGroup>>(std::move(described->groups));
  description_stale_ = true;
  definition_digest_ = memory.definition_digest();
  lineage_ = own.lineage();
  last_lineage_ = std::max(last_lineage_, lineage_);
  parent_lineage_ = memory.parent_lineage();
  last_rewind_ = {memory.rewind_key(), memory.rewind_cause(), memory.rewind_report()};
  last_checkpoint_ = own.last_checkpoint();
  sessions_.RaiseLastNumber(memory.last_session());
  calls_ = CommittedCalls::Of(memory);
  for (const auto& [rank, session] : sessions_.live()) {
    const LastCommit& last = calls_.last(rank);
    Session* const known = sessions_.Find(session.number);
    if (known != nullptr && last.session == known->number) known->next_call = last.call + 1;
  }
}

void Coordinator::SettleInDoubt() {
  if (state_ == State::kLost) return;
  // By ballot, which is the order of versions: what some server has acted on, and others have not.
  std::map<std::pair<uint64_t, uint64_t>, v1::Commit> decided;
  v1::Ballot highest;
  uint64_t version = 0;
  uint64_t lowest = UINT64_MAX;
  for (const Link& link : links_) {
    if (BallotLess(highest, link.welcome->last_decided())) highest = link.welcome->last_decided();
    version = std::max(version, link.welcome->committed_version());
    lowest = std::min(lowest, link.welcome->committed_version());
    for (const v1::Commit& commit : link.welcome->decided()) {
      decided[{commit.ballot().coordinator_incarnation(), commit.ballot().attempt()}] = commit;
    }
  }
  pipeline_.SetCommitted(lowest);
  const auto settle = [this](const v1::Ballot& ballot, Verdict verdict) {
    auto change = std::make_unique<Change>();
    std::vector<bool> applied;
    for (const Link& link : links_) {
      const InDoubt* const in_doubt = FindInDoubt(*link.welcome, ballot);
      applied.push_back(!BallotLess(link.welcome->last_decided(), ballot));
      // The coordinator's own server first: it has the trainers' states.
      if (in_doubt != nullptr && !change->request.has_ballot())
        change->request = in_doubt->request();
    }
    change->verdict = std::move(verdict);
    const bool step = change->request.has_step();
    const bool note = !applied[kCoordinatorRank];
    change->finished = [this, step, note](const Change& done, const absl::Status& status) {
      if (!status.ok()) return;
      // Else servers have become what this coordinator does not know yet.
      if (step) return FinishStep(done, {}, status, note);
      AskStanding();
    };
    pipeline_.Settle(std::move(change), std::move(applied));
    if (!step) state_ = State::kRecovering;
    return step;
  };
  for (const auto& [ballot, commit] : decided) {
    const bool everywhere =
        std::all_of(links_.begin(), links_.end(), [&commit = commit](const Link& link) {
          return !BallotLess(link.welcome->last_decided(), commit.ballot());
        });
    if (everywhere) {
      // Acted on, and perhaps not on every disk.
      pipeline_.Remember(commit);
      continue;
    }
    Verdict verdict;
    verdict.decision = commit.decision();
    if (!settle(commit.ballot(), std::move(verdict))) return;
  }
  // What all have prepared under one ballot is decided. A server that has not has promised to
  // follow nobody who might have decided it: it, and all above it, is aborted. So is what servers
  // have prepared under different ballots: nobody can have decided that either, and its callers
  // call again.
  bool left = false;
  for (const InDoubt& in_doubt : links_[kCoordinatorRank].welcome->in_doubt()) {
    const v1::Ballot& ballot = in_doubt.answer().ballot();
    if (!BallotLess(highest, ballot)) continue;
    std::vector<v1::Prepared> answers;
    for (const Link& link : links_) {
      const InDoubt* const same = FindInDoubt(*link.welcome, ballot);
      if (same != nullptr) answers.push_back(same->answer());
    }
    const bool next = !in_doubt.request().has_step() || in_doubt.request().version() == version + 1;
    if (static_cast<int>(answers.size()) < env_.servers || !next ||
        SHARDSTEP_BUG("abort_although_all_prepared")) {
      break;
    }
    Verdict verdict = Decide(in_doubt.request(), answers, Described(), Facts());
    if (verdict.decision.outcome() == v1::Decision::ABORT) break;
    version = in_doubt.request().version();
    highest = ballot;
    if (!settle(ballot, std::move(verdict))) return;
  }
  for (const Link& link : links_) {
    for (const InDoubt& in_doubt : link.welcome->in_doubt()) {
      left = left || BallotLess(highest, in_doubt.answer().ballot());
    }
  }
  if (left) pipeline_.AbortAll();
  if (state_ == State::kRecovering) state_ = State::kAbsent;
}

// ---- checkpoint

absl::Status Coordinator::CheckAllThere() const {
  for (int server = 0; server < env_.servers; ++server) {
    if (links_[server].welcomed) continue;
    return absl::UnavailableError(
        absl::StrCat("optimizer \"", name_, "\": waiting for server ", server));
  }
  return absl::OkStatus();
}

void Coordinator::ReturnWhenAllAreThere() {
  if (env_.durability != Durability::kCheckpoint || state_ != State::kLost || staged_ != nullptr ||
      draining_ || no_return_ || !pipeline_.empty() || !alone_.empty() ||
      env_.clock->Now() < next_return_) {
    return;
  }
  if (!CheckAllThere().ok()) return;
  next_return_ = env_.clock->Now() + kReturnAgain;
  staged_ = std::make_unique<Staged>();
  staged_->kind = Staged::Kind::kRestore;
  staged_->cause = v1::RollBack::FAILURE;
  staged_->key = absl::StrCat("return ", lineage_, " ", env_.start);
  ReadManifest(last_checkpoint_, lineage_);
}

}  // namespace shardstep
