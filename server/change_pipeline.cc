#include "shardstep/server/change_pipeline.h"

#include <algorithm>
#include <utility>

#include "shardstep/server/ballot.h"
#include "shardstep/server/faults.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

v1::Commit CommitOf(const Change& change) {
  v1::Commit commit;
  commit.set_version(change.request.version());
  *commit.mutable_ballot() = change.request.ballot();
  *commit.mutable_decision() = change.verdict->decision;
  if (change.hold.snapshot() != 0) *commit.mutable_hold() = change.hold;
  return commit;
}

bool HasAll(const std::vector<std::optional<v1::Prepared>>& answers) {
  return std::all_of(answers.begin(), answers.end(), [](const auto& a) { return a.has_value(); });
}

}  // namespace

ChangePipeline::ChangePipeline(int servers, uint64_t coordinator_incarnation, Outside outside)
    : servers_(servers),
      incarnation_(coordinator_incarnation),
      outside_(std::move(outside)),
      synced_(servers) {}

uint64_t ChangePipeline::decided() const {
  uint64_t version = committed_;
  for (const auto& change : changes_) {
    if (!change->verdict.has_value()) break;
    version = change->request.version();
  }
  return version;
}

bool ChangePipeline::prepared() const {
  return changes_.empty() || HasAll(changes_.back()->answers);
}

void ChangePipeline::Start(std::unique_ptr<Change> change) {
  change->request.set_version(change->version.value_or(committed_ + changes_.size() + 1));
  changes_.push_back(std::move(change));
  SendPrepare(changes_.back().get());
}

void ChangePipeline::SendPrepare(Change* change) {
  change->answers.assign(servers_, std::nullopt);
  change->applied.assign(servers_, false);
  change->reducing.reset();
  change->request.mutable_ballot()->set_coordinator_incarnation(incarnation_);
  change->request.mutable_ballot()->set_attempt(++attempt_);
  for (int server = 0; server < servers_; ++server) SendPrepareTo(server, *change);
}

void ChangePipeline::SendPrepareTo(int server, const Change& change) {
  v1::PeerMessage message;
  v1::Prepare* prepare = message.mutable_prepare();
  *prepare = change.request;
  if (server != 0) {
    // What the coordinator is to find again lies on its own server.
    if (prepare->has_step()) {
      for (v1::Contribution& contribution : *prepare->mutable_step()->mutable_contributions()) {
        contribution.clear_trainer_state();
      }
    }
    if (prepare->has_staged()) prepare->mutable_staged()->clear_memory();
  }
  outside_.send(server, std::move(message));
}

void ChangePipeline::OnPrepared(int server, const v1::Prepared& answer) {
  for (const auto& change : changes_) {
    if (SameBallot(change->request.ballot(), answer.ballot()) &&
        change->request.version() == answer.version()) {
      change->answers[server] = answer;
      return DecideWhatCanBe();
    }
  }
}

void ChangePipeline::DecideWhatCanBe() {
  for (size_t i = 0; i < changes_.size(); ++i) {
    Change& change = *changes_[i];
    if (change.verdict.has_value()) continue;
    if (!HasAll(change.answers) || change.reducing.has_value()) return;
    std::vector<v1::Prepared> answers;
    for (const auto& answer : change.answers) answers.push_back(*answer);
    Verdict verdict = outside_.decide(change.request, answers);
    SHARDSTEP_PASS("pipeline.decided");
    if (verdict.decision.outcome() == v1::Decision::ABORT) return AbortFrom(i, std::move(verdict));
    Continue(&change, std::move(verdict));
  }
}

void ChangePipeline::Continue(Change* change, Verdict verdict) {
  const bool sums = change->request.has_step() &&
                    verdict.decision.outcome() == v1::Decision::COMMIT &&
                    verdict.decision.reductions_size() < outside_.reduce_rounds();
  if (!sums) {
    change->reducing.reset();
    change->verdict = std::move(verdict);
    return SendCommit(*change);
  }
  change->reducing = std::move(verdict);
  change->reduced.assign(servers_, std::nullopt);
  for (int server = 0; server < servers_; ++server) SendReduceTo(server, *change);
}

void ChangePipeline::SendReduceTo(int server, const Change& change) {
  v1::PeerMessage message;
  v1::Reduce* reduce = message.mutable_reduce();
  reduce->set_version(change.request.version());
  *reduce->mutable_ballot() = change.request.ballot();
  *reduce->mutable_decision() = change.reducing->decision;
  outside_.send(server, std::move(message));
}

void ChangePipeline::OnReduced(int server, const v1::Reduced& reduced) {
  for (const auto& change : changes_) {
    if (!change->reducing.has_value() || !SameBallot(change->request.ballot(), reduced.ballot()) ||
        static_cast<int>(reduced.round()) != change->reducing->decision.reductions_size()) {
      continue;
    }
    change->reduced[server] = reduced;
    return EndRound(change.get());
  }
}

void ChangePipeline::EndRound(Change* change) {
  std::vector<v1::Reduced> sums;
  absl::Status failed;
  for (const auto& reduced : change->reduced) {
    if (!reduced.has_value()) return;
    if (reduced->has_error()) failed.Update(FromRichStatus(reduced->error()));
    sums.push_back(*reduced);
  }
  auto totals = failed.ok() ? outside_.add_up(sums) : absl::StatusOr<v1::Totals>(failed);
  if (!totals.ok()) {
    const auto same = [change](const auto& other) { return other.get() == change; };
    Verdict abort;
    abort.decision.set_outcome(v1::Decision::ABORT);
    abort.reason = totals.status();
    return AbortFrom(std::find_if(changes_.begin(), changes_.end(), same) - changes_.begin(),
                     std::move(abort));
  }
  Verdict verdict = *std::move(change->reducing);
  *verdict.decision.add_reductions() = *std::move(totals);
  Continue(change, std::move(verdict));
  DecideWhatCanBe();
}

void ChangePipeline::SendCommit(const Change& change) {
  const v1::Commit commit = CommitOf(change);
  const std::vector<bool> have = change.applied;
  const int servers = SHARDSTEP_BUG("commit_on_one_server_only") ? 1 : servers_;
  for (int server = 0; server < servers; ++server) {
    if (!have[server]) SendCommitTo(server, commit);
  }
}

void ChangePipeline::SendCommitTo(int server, const v1::Commit& commit) {
  v1::PeerMessage message;
  *message.mutable_commit() = commit;
  outside_.send(server, std::move(message));
}

void ChangePipeline::AbortFrom(size_t position, Verdict verdict) {
  const std::unique_ptr<Change> aborted = std::move(changes_[position]);
  changes_.erase(changes_.begin() + position);
  aborted->verdict = std::move(verdict);
  SendCommit(*aborted);
  // The abort dropped them on every server.
  for (size_t i = position; i < changes_.size(); ++i) {
    changes_[i]->request.set_version(changes_[i]->request.version() - 1);
    SendPrepare(changes_[i].get());
  }
  aborted->finished(*aborted, aborted->verdict->reason);
}

void ChangePipeline::OnApplied(int server, const v1::Applied& applied) {
  if (applied.has_error()) return outside_.server_failed(server, FromRichStatus(applied.error()));
  for (const auto& change : changes_) {
    if (!SameBallot(change->request.ballot(), applied.ballot())) continue;
    change->applied[server] = true;
    change->hold_lost = change->hold_lost || !applied.held();
    break;
  }
  FinishApplied();
}

void ChangePipeline::FinishApplied() {
  while (!changes_.empty() &&
         std::all_of(changes_.front()->applied.begin(), changes_.front()->applied.end(),
                     [](bool b) { return b; })) {
    const std::unique_ptr<Change> change = std::move(changes_.front());
    changes_.pop_front();
    committed_ = change->request.version();
    SHARDSTEP_PASS("pipeline.finished");
    if (change->request.has_delete_()) {
      // Nothing is left anywhere that could lack an earlier decision.
      finished_.clear();
    } else if (outside_.logged) {
      finished_.push_back(CommitOf(*change));
      finished_.back().clear_hold();
      ForgetSettled();
    }
    change->finished(*change, absl::OkStatus());
  }
}

void ChangePipeline::ForgetSettled() {
  const v1::Ballot all = settled();
  while (!finished_.empty() && !BallotLess(all, finished_.front().ballot())) finished_.pop_front();
}

void ChangePipeline::OnSynced(int server, const v1::Ballot& ballot) {
  if (BallotLess(synced_[server], ballot)) synced_[server] = ballot;
  ForgetSettled();
}

v1::Ballot ChangePipeline::settled() const {
  return *std::min_element(synced_.begin(), synced_.end(), BallotLess);
}

void ChangePipeline::Resume(int server, const v1::PeerWelcome& welcome) {
  const v1::Ballot& stands = welcome.last_decided();
  const bool absent = welcome.lineage() == 0 && welcome.in_doubt().empty();
  for (const v1::Commit& commit : finished_) {
    if (!absent && BallotLess(stands, commit.ballot())) SendCommitTo(server, commit);
  }
  // What it has prepared and nobody wants any more goes first.
  for (const v1::PeerWelcome::InDoubt& in_doubt : welcome.in_doubt()) {
    const v1::Ballot& ballot = in_doubt.answer().ballot();
    const auto same = [&ballot](const v1::Ballot& other) { return SameBallot(ballot, other); };
    if (std::any_of(finished_.begin(), finished_.end(),
                    [&](const v1::Commit& commit) { return same(commit.ballot()); }) ||
        std::any_of(changes_.begin(), changes_.end(),
                    [&](const auto& change) { return same(change->request.ballot()); })) {
      continue;
    }
    v1::Commit abort;
    abort.set_version(in_doubt.answer().version());
    *abort.mutable_ballot() = ballot;
    abort.mutable_decision()->set_outcome(v1::Decision::ABORT);
    SendCommitTo(server, abort);
    break;
  }
  for (const auto& change : changes_) {
    const v1::Ballot& ballot = change->request.ballot();
    const bool deleted = absent && change->request.has_delete_();
    if (change->verdict.has_value()) {
      // Its hold, if it had one, went with its memory.
      if (deleted || !BallotLess(stands, ballot)) {
        change->applied[server] = true;
        change->hold_lost = true;
      } else {
        SendCommitTo(server, CommitOf(*change));
      }
      continue;
    }
    if (change->reducing.has_value()) {
      if (!change->reduced[server].has_value()) SendReduceTo(server, *change);
      continue;
    }
    if (change->answers[server].has_value()) continue;
    const auto& all = welcome.in_doubt();
    const auto known = std::find_if(all.begin(), all.end(), [&](const auto& in_doubt) {
      return SameBallot(in_doubt.answer().ballot(), ballot);
    });
    if (known == all.end()) {
      SendPrepareTo(server, *change);
    } else {
      change->answers[server] = known->answer();
    }
  }
  FinishApplied();
  DecideWhatCanBe();
}

void ChangePipeline::Settle(std::unique_ptr<Change> change, std::vector<bool> applied) {
  change->applied = std::move(applied);
  change->answers.assign(servers_, std::nullopt);
  change->hold_lost = true;
  Verdict verdict = *std::exchange(change->verdict, std::nullopt);
  changes_.push_back(std::move(change));
  Continue(changes_.back().get(), std::move(verdict));
}

void ChangePipeline::Remember(const v1::Commit& commit) { finished_.push_back(commit); }

void ChangePipeline::AbortAll() {
  v1::Commit abort;
  abort.mutable_ballot()->set_coordinator_incarnation(incarnation_);
  abort.mutable_decision()->set_outcome(v1::Decision::ABORT);
  for (int server = 0; server < servers_; ++server) SendCommitTo(server, abort);
}

void ChangePipeline::FailAll(const absl::Status& status) {
  std::deque<std::unique_ptr<Change>> failed = std::move(changes_);
  changes_.clear();
  for (const auto& change : failed) change->finished(*change, status);
}

bool ChangePipeline::HasStepOf(int trainer_rank, uint64_t other_than_session) const {
  for (const auto& change : changes_) {
    for (const v1::Contribution& contribution : change->request.step().contributions()) {
      if (contribution.trainer_rank() == trainer_rank &&
          contribution.pushes().session() != other_than_session) {
        return true;
      }
    }
  }
  return false;
}

std::vector<int> ChangePipeline::WaitingFor() const {
  std::vector<int> waiting;
  if (changes_.empty()) return waiting;
  const Change& oldest = *changes_.front();
  for (int server = 0; server < servers_; ++server) {
    const bool answered = oldest.verdict.has_value()    ? oldest.applied[server]
                          : oldest.reducing.has_value() ? oldest.reduced[server].has_value()
                                                        : oldest.answers[server].has_value();
    if (!answered) waiting.push_back(server);
  }
  return waiting;
}

}  // namespace shardstep
