#include "shardstep/server/change_pipeline.h"

#include <algorithm>
#include <utility>

#include "shardstep/wire/rich_status.h"

namespace shardstep {

ChangePipeline::ChangePipeline(int servers, uint64_t coordinator_incarnation, Outside outside)
    : servers_(servers), incarnation_(coordinator_incarnation), outside_(std::move(outside)) {}

uint64_t ChangePipeline::decided() const {
  uint64_t version = committed_;
  for (const auto& change : changes_) {
    if (!change->verdict.has_value()) break;
    version = change->request.version();
  }
  return version;
}

void ChangePipeline::Start(std::unique_ptr<Change> change) {
  change->request.set_version(change->version.value_or(committed_ + changes_.size() + 1));
  changes_.push_back(std::move(change));
  SendPrepare(changes_.back().get());
}

void ChangePipeline::SendPrepare(Change* change) {
  change->answers.assign(servers_, std::nullopt);
  change->applied.assign(servers_, false);
  change->request.mutable_ballot()->set_coordinator_incarnation(incarnation_);
  change->request.mutable_ballot()->set_attempt(++attempt_);
  for (int server = 0; server < servers_; ++server) {
    v1::PeerMessage message;
    *message.mutable_prepare() = change->request;
    outside_.send(server, std::move(message));
  }
}

void ChangePipeline::OnPrepared(int server, const v1::Prepared& answer) {
  for (const auto& change : changes_) {
    if (change->request.ballot().attempt() == answer.ballot().attempt() &&
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
    std::vector<v1::Prepared> answers;
    for (const auto& answer : change.answers) {
      if (!answer.has_value()) return;
      answers.push_back(*answer);
    }
    Verdict verdict = outside_.decide(change.request, answers);
    const bool abort = verdict.decision.outcome() == v1::Decision::ABORT;
    change.verdict = std::move(verdict);
    SendCommit(change);
    if (abort) return AbortFrom(i);
  }
}

void ChangePipeline::SendCommit(const Change& change) {
  for (int server = 0; server < servers_; ++server) {
    v1::PeerMessage message;
    v1::Commit* commit = message.mutable_commit();
    commit->set_version(change.request.version());
    *commit->mutable_ballot() = change.request.ballot();
    *commit->mutable_decision() = change.verdict->decision;
    if (change.hold.snapshot() != 0) *commit->mutable_hold() = change.hold;
    outside_.send(server, std::move(message));
  }
}

void ChangePipeline::AbortFrom(size_t position) {
  const std::unique_ptr<Change> aborted = std::move(changes_[position]);
  changes_.erase(changes_.begin() + position);
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
    if (change->request.ballot().attempt() != applied.ballot().attempt()) continue;
    if (std::none_of(change->applied.begin(), change->applied.end(), [](bool b) { return b; })) {
      change->held = true;
    }
    change->applied[server] = true;
    change->held = change->held && applied.held();
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
    change->finished(*change, absl::OkStatus());
  }
}

void ChangePipeline::FailAll(const absl::Status& status) {
  std::deque<std::unique_ptr<Change>> failed = std::move(changes_);
  changes_.clear();
  for (const auto& change : failed) change->finished(*change, status);
}

std::vector<int> ChangePipeline::WaitingFor() const {
  std::vector<int> waiting;
  if (changes_.empty()) return waiting;
  const Change& oldest = *changes_.front();
  for (int server = 0; server < servers_; ++server) {
    const bool answered =
        oldest.verdict.has_value() ? oldest.applied[server] : oldest.answers[server].has_value();
    if (!answered) waiting.push_back(server);
  }
  return waiting;
}

}  // namespace shardstep
