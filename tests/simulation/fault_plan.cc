#include "shardstep/tests/simulation/fault_plan.h"

#include <numeric>
#include <utility>

namespace shardstep {

FaultPlan::FaultPlan(Outside outside, Durability durability)
    : outside_(std::move(outside)), durability_(durability) {
  Random& random = outside_.simulation->random();
  for (uint64_t& weight : weights_) weight = random.Chance(0.5) ? 1 + random.Below(10) : 0;
  if (durability == Durability::kNone) {
    for (const Fault fault : {kCrash, kCrashAll, kFullDisk, kBrokenDisk, kReplaceCoordinator}) {
      weights_[fault] = 0;
    }
  } else if (random.Chance(0.5)) {
    failpoint_chance_ = 0.003;
  }
  if (random.Chance(0.5)) network_.lost = network_.repeated = 0.2;
  if (random.Chance(0.5)) network_.late = 0.1;
  if (random.Chance(0.5)) network_.breaks = 0.01;
  interval_ = random.Between(absl::Milliseconds(200), absl::Seconds(4));
}

void FaultPlan::Begin() {
  ++round_;
  outside_.network->SetFaults(network_);
  outside_.failpoints->SetChance(failpoint_chance_);
  outside_.fleet->SetLongestOutage(absl::Seconds(3));
  Next();
}

void FaultPlan::End() {
  ++round_;
  outside_.failpoints->SetChance(0);
  outside_.failpoints->Disarm();
  outside_.network->Heal();
  outside_.fleet->Heal();
}

absl::Duration FaultPlan::UpTo(absl::Duration longest) {
  return outside_.simulation->random().Between(absl::Milliseconds(1), longest);
}

void FaultPlan::Next() {
  const uint64_t sum = std::accumulate(weights_.begin(), weights_.end(), uint64_t{0});
  if (sum == 0) return;
  outside_.simulation->After(UpTo(2 * interval_), nullptr, "fault", [this, sum, round = round_] {
    if (round != round_) return;
    uint64_t chosen = outside_.simulation->random().Below(sum);
    int fault = 0;
    while (chosen >= weights_[fault]) chosen -= weights_[fault++];
    Happen(static_cast<Fault>(fault));
    Next();
  });
}

void FaultPlan::Happen(Fault fault) {
  Random& random = outside_.simulation->random();
  SimFleet& fleet = *outside_.fleet;
  SimServer* const server = fleet.server(static_cast<int>(random.Below(fleet.size())));
  SimServer* const other = fleet.server(static_cast<int>(random.Below(fleet.size())));
  const int rank = static_cast<int>(random.Below(outside_.trainers->size()));
  Process* const trainer = outside_.trainers->process(rank);
  // Sometimes so long that leases end.
  const absl::Duration pause =
      random.Chance(0.3) ? outside_.lease + UpTo(outside_.lease) : UpTo(absl::Seconds(1));
  switch (fault) {
    case kCrash:
      return server->Crash();
    case kCrashAll:
      return fleet.CrashAll();
    case kHoldUpServer:
      if (!server->process()->alive()) return;
      return outside_.simulation->HoldUp(server->process(), pause);
    case kHoldUpTrainer:
      if (!trainer->alive()) return;
      return outside_.simulation->HoldUp(trainer, pause);
    case kJump:
      outside_.simulation->probes().Hit("clock_jumped");
      return server->clock()->Jump(UpTo(2 * outside_.lease));
    case kClog: {
      Process* const from = random.Chance(0.5) ? trainer : other->process();
      if (from != server->process()) outside_.network->Clog(from, server->process(), pause);
      return;
    }
    case kIsolate:
      for (int peer = 0; peer < fleet.size(); ++peer) {
        Process* const process = fleet.server(peer)->process();
        if (process == server->process()) continue;
        outside_.network->Clog(process, server->process(), pause);
        outside_.network->Clog(server->process(), process, pause);
      }
      return;
    case kKillTrainer:
      return outside_.trainers->Kill(rank, random.Chance(0.5) ? pause : absl::ZeroDuration());
    case kReplaceTrainer:
      return outside_.trainers->Replace(rank, pause);
    case kFullDisk:
      server->disk()->SetLimit(server->disk()->used_bytes() + random.Below(4096));
      return outside_.simulation->After(UpTo(absl::Seconds(3)), nullptr, "room on the disk",
                                        [server] { server->disk()->SetLimit(-1); });
    case kBrokenDisk:
      return server->disk()->FailChange(
          random.Below(20), random.Chance(0.5) ? absl::ResourceExhaustedError("no space")
                                               : absl::InternalError("input/output error"));
    case kReplaceCoordinator:
      // Before there is an optimizer nobody learns that there is a new one.
      if (replaced_ || !outside_.trainers->Trained(1)) return;
      replaced_ = true;
      return fleet.ReplaceCoordinator(pause);
    case kFaults:
      return;
  }
}

}  // namespace shardstep
