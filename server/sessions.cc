#include "shardstep/server/sessions.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/server/faults.h"

namespace shardstep {
namespace {

constexpr size_t kMaxInstanceBytes = 64;
constexpr size_t kMaxReplaced = 8;

}  // namespace

SessionTable::SessionTable(const Clock* clock, absl::Duration lease, uint64_t number_base)
    : clock_(clock), lease_(lease), last_number_(number_base), last_tick_(clock->Now()) {}

absl::Time SessionTable::Now() const {
#ifdef SHARDSTEP_FAULTS
  if (SHARDSTEP_BUG("wall_clock_leases")) return clock_->Wall();
#endif
  return clock_->Now();
}

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
    if (!inserted) {
      *replaced = session.number;
      std::deque<std::string>& before = replaced_[trainer_rank];
      if (session.instance != instance) before.push_back(session.instance);
      if (before.size() > kMaxReplaced) before.pop_front();
    }
    rank_of_.erase(session.number);
    session = Session();
    session.number = ++last_number_;
    rank_of_[session.number] = trainer_rank;
    session.trainer_rank = trainer_rank;
    session.instance = instance;
    session.regions = std::move(regions);
  }
  Renew(&session);
  return &session;
}

bool SessionTable::WasReplaced(int trainer_rank, const std::string& instance) const {
  const auto before = replaced_.find(trainer_rank);
  return before != replaced_.end() &&
         std::find(before->second.begin(), before->second.end(), instance) != before->second.end();
}

Session* SessionTable::Find(uint64_t number) {
  const auto found = rank_of_.find(number);
  Session* const session = found == rank_of_.end() ? nullptr : OfRank(found->second);
  if (session != nullptr || !SHARDSTEP_BUG("no_session_check")) return session;
  for (auto& [rank, newer] : live_) {
    if (newer.number > number) return &newer;
  }
  return nullptr;
}

Session* SessionTable::OfRank(int trainer_rank) {
  auto found = live_.find(trainer_rank);
  return found == live_.end() || found->second.closed ? nullptr : &found->second;
}

void SessionTable::Renew(Session* session) {
  session->last_seen = Now();
  session->lease_end = session->last_seen + lease_;
}

void SessionTable::RenewAll() {
  for (auto& [rank, session] : live_) session.lease_end = Now() + lease_;
}

void SessionTable::Tick() {
  const absl::Time now = Now();
  if (now - last_tick_ > lease_ / 4) RenewAll();
  last_tick_ = now;
}

void SessionTable::Recover(const std::vector<v1::AnnounceSessions::Session>& announced) {
  for (const v1::AnnounceSessions::Session& known : announced) {
    last_number_ = std::max(last_number_, known.session());
    Session& session = live_[known.trainer_rank()];
    if (session.number >= known.session()) continue;
    rank_of_.erase(session.number);
    session.number = known.session();
    rank_of_[session.number] = known.trainer_rank();
    session.trainer_rank = known.trainer_rank();
    session.instance = known.instance();
    session.regions.assign(known.regions().begin(), known.regions().end());
    session.closed = known.closed();
    session.announced = true;
    Renew(&session);
  }
}

void SessionTable::RaiseLastNumber(uint64_t last_session) {
  last_number_ = std::max(last_number_, last_session);
}

}  // namespace shardstep
