#include "shardstep/tests/faults/kill_run.h"

#include <algorithm>
#include <csignal>
#include <numeric>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/faults/kill_moment.h"
#include "shardstep/tests/faults/ledger_model.h"

namespace shardstep {
namespace {

constexpr int kMostStepsBetween = 3;

std::vector<int> All(size_t count) {
  std::vector<int> all(count);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

const char* NameOf(KillMoment moment) {
  switch (moment) {
    case KillMoment::kPush:
      return "push";
    case KillMoment::kPrepare:
      return "prepare";
    case KillMoment::kCommit:
      return "commit";
  }
  return "";
}

const char* NameOf(int32_t phase) {
  switch (phase) {
    case TrainerProgress::kStarting:
      return "start";
    case TrainerProgress::kPushing:
      return "push";
    case TrainerProgress::kStepping:
      return "step";
    default:
      return "pull";
  }
}

LedgerFleetOptions FleetOptionsOf(const KillRunOptions& options) {
  LedgerFleetOptions fleet;
  fleet.coupled = options.coupled;
  return fleet;
}

}  // namespace

KillRun::KillRun(const KillRunOptions& options)
    : options_(options), random_(options.seed), fleet_(FleetOptionsOf(options)) {
  const LedgerFleetOptions fleet;
  report_.kills_of.resize(options.trainers ? fleet.trainers : fleet.fleet.servers);
}

absl::Status KillRun::Run() {
  SHARDSTEP_RETURN_IF_ERROR(fleet_.Start());
  while (report_.kills < options_.kills) {
    const absl::Status status = Kill();
    if (status.ok()) continue;
    return absl::Status(status.code(),
                        absl::StrCat("kill ", report_.kills, ": ", status.message()));
  }
  SHARDSTEP_ASSIGN_OR_RETURN(report_.verdict, fleet_.End());
  return absl::OkStatus();
}

std::vector<int> KillRun::Victims() {
  if (Draw(10) == 0) return All(report_.kills_of.size());
  if (turns_.empty()) {
    turns_ = All(report_.kills_of.size());
    std::shuffle(turns_.begin(), turns_.end(), random_);
  }
  const int victim = turns_.back();
  turns_.pop_back();
  return {victim};
}

absl::Status KillRun::Kill() {
  // Some steps later, somewhere in a step: one time in three while gradients are pushed or values
  // pulled, else behind that.
  const int steps = Draw(kMostStepsBetween);
  absl::Time begun = absl::Now();
  SHARDSTEP_RETURN_IF_ERROR(fleet_.AwaitBeyond(fleet_.MaxAcknowledged() + steps));
  absl::Duration span = (absl::Now() - begun) / (steps + 1);
  if (Draw(3) > 0) {
    AwaitAllStepping();
    begun = absl::Now();
    SHARDSTEP_RETURN_IF_ERROR(fleet_.AwaitBeyond(fleet_.MaxAcknowledged()));
    span = absl::Now() - begun;
    AwaitAllStepping();
  }
  absl::SleepFor(span * (Draw(1000) / 1000.0));

  const std::vector<int> victims = Victims();
  SHARDSTEP_RETURN_IF_ERROR(options_.trainers ? KillTrainers(victims) : KillServers(victims));
  up_ = absl::Now();
  ++report_.kills;
  for (const int victim : victims) ++report_.kills_of[victim];
  if (victims.size() > 1) ++report_.kills_of_all;
  SHARDSTEP_RETURN_IF_ERROR(fleet_.AwaitBeyond(fleet_.MaxAcknowledged()));
  report_.resumed.push_back(absl::Now() - up_);
  return absl::OkStatus();
}

void KillRun::AwaitAllStepping() {
  const auto stepping = [this] {
    for (int rank = 0; rank < LedgerFleetOptions().trainers; ++rank) {
      if (fleet_.progress(rank).phase != TrainerProgress::kStepping) return false;
    }
    return true;
  };
  const absl::Time deadline = absl::Now() + absl::Seconds(1);
  while (!stepping() && absl::Now() < deadline) absl::SleepFor(absl::Microseconds(100));
}

absl::Status KillRun::KillServers(const std::vector<int>& victims) {
  MiniFleet& servers = fleet_.servers();
  const uint64_t acknowledged = fleet_.MaxAcknowledged();
  for (const int victim : victims) kill(servers.pid(victim), SIGKILL);
  for (const int victim : victims) servers.Kill(victim);
  SHARDSTEP_ASSIGN_OR_RETURN(
      const KillMoment moment,
      MomentOf(absl::StrCat(servers.data_directory(victims[0]), "/wal/", kLedgerOptimizer),
               acknowledged));
  ++report_.moments[NameOf(moment)];
  return servers.Restart(victims);
}

absl::Status KillRun::KillTrainers(const std::vector<int>& victims) {
  ++report_.moments[NameOf(fleet_.progress(victims[0]).phase.load())];
  for (const int victim : victims) fleet_.trainer(victim).Signal(SIGKILL);
  for (const int victim : victims) {
    fleet_.trainer(victim).Kill();
    SHARDSTEP_RETURN_IF_ERROR(fleet_.StartTrainer(victim));
  }
  return absl::OkStatus();
}

}  // namespace shardstep
