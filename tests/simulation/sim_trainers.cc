#include "shardstep/tests/simulation/sim_trainers.h"

#include <algorithm>

namespace shardstep {
namespace {

constexpr absl::Duration kWatchEvery = absl::Milliseconds(500);

}  // namespace

void SimTrainers::Start(Ledger* ledger) {
  outside_.ledger = ledger;
  over_ = false;
  rests_at_ = UINT64_MAX;
  current_.assign(outside_.workload->trainers, nullptr);
  absent_until_.assign(outside_.workload->trainers, absl::InfinitePast());
  for (int rank = 0; rank < outside_.workload->trainers; ++rank) Begin(rank);
  Mark();
  if (!watching_) Watch();
  watching_ = true;
}

void SimTrainers::Begin(int rank) {
  all_.push_back(std::make_unique<SimTrainer>(outside_, rank, ++instances_));
  current_[rank] = all_.back().get();
  current_[rank]->RestAt(rests_at_);
  current_[rank]->Start();
}

void SimTrainers::Watch() {
  for (size_t rank = 0; rank < current_.size(); ++rank) {
    if (!over_ && !current_[rank]->alive() && outside_.simulation->now() >= absent_until_[rank]) {
      Begin(static_cast<int>(rank));
    }
  }
  outside_.simulation->After(kWatchEvery, nullptr, "watch", [this] { Watch(); });
}

void SimTrainers::Kill(int rank, absl::Duration outage) {
  current_[rank]->Die();
  absent_until_[rank] = outside_.simulation->now() + outage;
}

void SimTrainers::Replace(int rank, absl::Duration pause) {
  if (!current_[rank]->alive()) return;
  outside_.simulation->probes().Hit("trainer_replaced");
  outside_.simulation->HoldUp(current_[rank]->process(), pause);
  Begin(rank);
}

void SimTrainers::KillAll() {
  for (const auto& trainer : all_) trainer->Die();
  over_ = true;
}

void SimTrainers::Rest() {
  for (const auto& trainer : all_) {
    if (trainer.get() != current_[trainer->rank()]) trainer->Die();
  }
  rests_at_ = 0;
  if (outside_.workload->synchronous) {
    // Some may be at the one behind it already.
    for (const SimTrainer* const trainer : current_) {
      rests_at_ = std::max(rests_at_, trainer->steps() + 1);
    }
  }
  for (SimTrainer* const trainer : current_) trainer->RestAt(rests_at_);
}

uint64_t SimTrainers::Acknowledged(int rank) const {
  uint64_t sum = 0;
  for (const auto& trainer : all_) {
    if (trainer->rank() == rank) sum += trainer->acknowledged();
  }
  return sum;
}

void SimTrainers::Mark() {
  marks_.clear();
  for (size_t rank = 0; rank < current_.size(); ++rank) marks_.push_back(Acknowledged(rank));
}

bool SimTrainers::Trained(uint64_t steps) const {
  for (size_t rank = 0; rank < current_.size(); ++rank) {
    if (Acknowledged(rank) < marks_[rank] + steps) return false;
  }
  return true;
}

bool SimTrainers::Resting() const {
  return std::all_of(current_.begin(), current_.end(),
                     [](const SimTrainer* trainer) { return trainer->resting(); });
}

}  // namespace shardstep
