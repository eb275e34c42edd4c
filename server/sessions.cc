#include "shardstep/server/sessions.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace shardstep {
namespace {

constexpr size_t kMaxInstanceBytes = 64;
constexpr size_t kMaxRecorded = 64;

}  // namespace

SessionTable::SessionTable(const Clock* clock, absl::Duration lease, uint64_t number_base)
    : clock_(clock), lease_(lease), last_number_(number_base), last_tick_(clock->Now()) {}

absl::StatusOr<Session*> SessionTable::Open(int trainer_rank, const std::string& instance,
                                            std::vector<v1::DeclaredRegion> regions,
                                            uint64_t* replaced) {
  *replaced = 0;
  if (trainer_rank < 0 || trainer_rank >= kMaxTrainerRanks) {
    return absl::InvalidArgumentError(
        absl::StrCat("trainer rank ", trainer_rank, ": expected 0 to ", kMaxTrainerRanks - 1));
  }
  if (instance.empty() || instance.size() > kMaxInstanceBytes) {
    return absl::InvalidArgumentError(absl::StrCat("instance id of ", instance.size(),
                                                   " bytes, expected 1 to ", kMaxInstanceBytes));
  }
  auto [found, inserted] = live_.try_emplace(trainer_rank);
  Session& session = found->second;
  if (inserted || session.instance != instance || session.closed) {
    if (!inserted) *replaced = session.number;
    session = Session();
    session.number = ++last_number_;
    session.trainer_rank = trainer_rank;
    session.instance = instance;
    session.regions = std::move(regions);
  }
  Renew(&session);
  return &session;
}

Session* SessionTable::Find(uint64_t number) {
  for (auto& [rank, session] : live_) {
    if (session.number == number && !session.closed) return &session;
  }
  return nullptr;
}

Session* SessionTable::OfRank(int trainer_rank) {
  auto found = live_.find(trainer_rank);
  return found == live_.end() || found->second.closed ? nullptr : &found->second;
}

void SessionTable::Renew(Session* session) {
  session->last_seen = clock_->Now();
  session->lease_end = session->last_seen + lease_;
}

void SessionTable::RenewAll() {
  for (auto& [rank, session] : live_) session.lease_end = clock_->Now() + lease_;
}

void SessionTable::Tick() {
  const absl::Time now = clock_->Now();
  if (now - last_tick_ > lease_ / 4) RenewAll();
  last_tick_ = now;
}

void SessionTable::Record(Session* session, uint64_t sequence, std::string request,
                          const v1::StepReply::Committed& reply) {
  session->recorded[sequence] = {std::move(request), reply};
  while (session->recorded.size() > kMaxRecorded)
    session->recorded.erase(session->recorded.begin());
}

std::vector<v1::TrainerState> SessionTable::TrainerStates() const {
  std::vector<v1::TrainerState> trainers;
  for (const auto& [rank, last] : last_commits_) {
    if (last.version == 0 && last.trainer_state.empty()) continue;
    v1::TrainerState& trainer = trainers.emplace_back();
    trainer.set_trainer_rank(rank);
    trainer.set_session(last.session);
    trainer.set_last_call(last.call);
    trainer.set_last_version(last.version);
    trainer.set_state(last.trainer_state);
  }
  return trainers;
}

void SessionTable::LoadTrainerStates(const std::vector<v1::TrainerState>& trainers) {
  for (auto& [rank, last] : last_commits_) last.trainer_state.clear();
  for (const v1::TrainerState& trainer : trainers) {
    last_commits_[trainer.trainer_rank()].trainer_state = trainer.state();
  }
}

void SessionTable::Restore(const std::vector<v1::TrainerState>& trainers, uint64_t last_session) {
  last_number_ = std::max(last_number_, last_session);
  last_commits_.clear();
  for (const v1::TrainerState& trainer : trainers) {
    last_commits_[trainer.trainer_rank()] = {trainer.session(), trainer.last_call(),
                                             trainer.last_version(), trainer.state()};
  }
}

void SessionTable::Forget(Session* session, uint64_t first_live_call) {
  session->recorded.erase(session->recorded.begin(),
                          session->recorded.lower_bound(first_live_call));
}

}  // namespace shardstep
