#include "shardstep/tests/simulation/sim_run.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "shardstep/tests/simulation/fault_plan.h"
#include "shardstep/tests/simulation/ledger.h"
#include "shardstep/tests/simulation/random.h"
#include "shardstep/tests/simulation/sim_fleet.h"
#include "shardstep/tests/simulation/sim_operator.h"
#include "shardstep/tests/simulation/sim_reader.h"
#include "shardstep/tests/simulation/sim_trainers.h"
#include "shardstep/tests/simulation/simulation.h"
#include "shardstep/tests/simulation/wire_observer.h"

namespace shardstep {
namespace {

constexpr absl::Duration kLease = absl::Seconds(4);
constexpr absl::Duration kJudgeEvery = absl::Milliseconds(100);
constexpr absl::Duration kLongestPauseOfReader = absl::Seconds(2);
// Within this everything goes on again once nothing fails any more.
constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr absl::Duration kLull = absl::Seconds(10);
constexpr uint64_t kStepsAfterwards = 3;
// Of a run that is after one failpoint.
constexpr absl::Duration kTargetAct = absl::Seconds(6);
constexpr int kMostTargetActs = 100;

NodeOptions NodeOptionsOf(const RunOptions& options, Random* random) {
  NodeOptions node;
  node.servers = options.workload.servers;
  node.lease = kLease;
  node.shard_memory = node.push_memory = node.snapshot_memory = 1 << 24;
  node.numeric_fingerprint = 7;
  node.durability = options.durability;
  if (random->Chance(0.7)) node.checkpoint_interval = absl::Seconds(1 + random->Below(3));
  // Small, so that bases are written.
  node.log_bytes = options.target.has_value() ? 2048 : 2048 << random->Below(5);
  return node;
}

class SimRun {
 public:
  explicit SimRun(const RunOptions& options);
  RunReport Go();

 private:
  absl::Time In(absl::Duration duration) { return simulation_.now() + duration; }
  bool failed() const { return !simulation_.failures().empty(); }
  void Act();
  void Delete();
  void Trouble();
  void TroubleAtTarget();
  void TroubleOfNetwork();
  // Has the target fire on the server that it fired on least; false: it has fired often enough.
  bool Aim();
  // Makes happen what leads past rare failpoints.
  void Stir();
  // Comes to rest, is read and judged.
  void Settle();
  void Judge();
  void ReadOnAndOn();
  void Watch();
  // Lets `done` become true.
  void Expect(const std::function<bool()>& done, absl::string_view what);

  const RunOptions options_;
  Simulation simulation_;
  SimNetwork network_;
  WireObserver observer_;
  std::unique_ptr<Ledger> ledger_;
  SimFleet fleet_;
  Failpoints failpoints_;
  SimTrainers trainers_;
  SimReader reader_;
  SimOperator operator_;
  FaultPlan faults_;
  uint64_t reading_round_ = 0;
  RunReport report_;
};

SimRun::SimRun(const RunOptions& options)
    : options_(options),
      simulation_(options.seed, options.print),
      network_(&simulation_),
      observer_(&simulation_),
      fleet_(&simulation_, &network_, &observer_, options.workload.servers,
             NodeOptionsOf(options, &simulation_.random())),
      failpoints_({&simulation_,
                   [this](const Process* process) {
                     const SimServer* const server = fleet_.Of(process);
                     return server == nullptr ? -1 : server->rank();
                   },
                   [this](const Process* process) { fleet_.Of(process)->Crash(); }}),
      trainers_({&simulation_, &network_, nullptr, &options_.workload, kLease,
                 [this](int server) { return fleet_.Find(server); }}),
      reader_({&simulation_, &network_, &options_.workload,
               [this](int server) { return fleet_.Find(server); }}),
      operator_({&simulation_, &network_, [this](int server) { return fleet_.Find(server); }}),
      faults_({&simulation_, &network_, &fleet_, &trainers_, &failpoints_, kLease},
              options.durability) {}

void SimRun::Expect(const std::function<bool()>& done, absl::string_view what) {
  if (failed()) return;
  if (!simulation_.RunUntil(In(kPatience), done) && !failed()) simulation_.Fail("stuck", what);
}

void SimRun::Watch() {
  if (ledger_ != nullptr) fleet_.CheckStandings(ledger_.get());
  simulation_.After(kJudgeEvery, nullptr, "watch standings", [this] { Watch(); });
}

void SimRun::ReadOnAndOn() {
  simulation_.After(
      // A long history takes long to be judged.
      simulation_.random().Between(absl::ZeroDuration(), kLongestPauseOfReader) *
          (options_.lossy.has_value() ? 50 : 1),
      nullptr, "read", [this, round = reading_round_] {
        if (round != reading_round_) return;
        reader_.Read(ledger_.get(), [this](const Ledger::Read&) { ReadOnAndOn(); });
      });
}

void SimRun::Judge() {
  ++reading_round_;
  reader_.Stop();
  bool read = false;
  reader_.Read(ledger_.get(), [&read](const Ledger::Read&) { read = true; });
  Expect([&read] { return read; }, "nothing can be read at rest");
  reader_.Stop();
  if (!failed()) fleet_.CheckSettled(ledger_.get());
}

void SimRun::Settle() {
  trainers_.Mark();
  Expect([this] { return fleet_.AllUp() && trainers_.Trained(kStepsAfterwards); },
         "training does not go on when all is well again");
  trainers_.Rest();
  Expect([this] { return trainers_.Resting(); }, "trainers do not come to rest");
  // What trainers that are dead had sent arrives.
  if (!failed()) simulation_.RunUntil(In(kLull));
  Judge();
  if (options_.durability == Durability::kNone || failed()) return;
  fleet_.CrashAll();
  Expect([this] { return fleet_.AllUp(); }, "servers do not start");
  Judge();
}

void SimRun::Trouble() {
  if (options_.target.has_value()) {
    TroubleAtTarget();
  } else if (options_.lossy.has_value()) {
    TroubleOfNetwork();
  } else {
    faults_.Begin();
    simulation_.RunUntil(In(options_.trouble));
  }
  faults_.End();
}

void SimRun::TroubleOfNetwork() {
  network_.SetFaults(options_.lossy->faults);
  for (uint64_t tenth = 1; tenth <= 10; ++tenth) {
    const uint64_t steps = options_.lossy->steps * tenth / 10;
    simulation_.RunUntil(absl::InfiniteFuture(), [&] { return ledger_->acknowledged() >= steps; });
    // One that starts again is told what its predecessor kept.
    fleet_.server(kCoordinatorRank)->Crash();
    trainers_.Mark();
    Expect([this] { return trainers_.Trained(1); }, "training does not go on");
    if (failed()) return;
    RunReport::Memory memory;
    memory.calls = observer_.memory_bytes();
    for (int server = 0; server < fleet_.size(); ++server) {
      memory.pushes += fleet_.server(server)->node()->push_memory().used();
    }
    report_.memory.push_back(memory);
  }
}

bool SimRun::Aim() {
  const RunOptions::Target& target = *options_.target;
  const bool everywhere = target.point.where == Failpoint::Where::kEveryServer;
  int least = 0;
  const auto fired = [&](int server) {
    const auto found = failpoints_.fired().find({target.point.name, server, target.kind});
    return found == failpoints_.fired().end() ? 0 : found->second;
  };
  for (int server = 1; everywhere && server < fleet_.size(); ++server) {
    if (fired(server) < fired(least)) least = server;
  }
  if (fired(least) >= target.times) return false;
  if (!failpoints_.armed()) {
    failpoints_.Arm(target.point.name, least, target.kind,
                    static_cast<int>(simulation_.random().Below(2)));
  }
  return true;
}

void SimRun::Stir() {
  Random& random = simulation_.random();
  const int rank = static_cast<int>(random.Below(fleet_.size()));
  switch (random.Below(8)) {
    case 0:
      return operator_.Checkpoint([] {});
    case 1:
      return trainers_.Kill(static_cast<int>(random.Below(trainers_.size())), absl::ZeroDuration());
    case 2:
    case 3:
      return fleet_.server(rank)->Crash();
    case 4:
      return fleet_.CrashAll();
    default:
      return;
  }
}

void SimRun::TroubleAtTarget() {
  fleet_.SetLongestOutage(absl::Milliseconds(300));
  const absl::Time end = In(kTargetAct);
  while (simulation_.now() < end && !failed() && Aim()) {
    Stir();
    simulation_.RunUntil(In(simulation_.random().Between(absl::Milliseconds(50), absl::Seconds(1))),
                         [this] { return !failpoints_.armed(); });
  }
}

void SimRun::Act() {
  ledger_ = std::make_unique<Ledger>(&simulation_, options_.workload, options_.durability);
  observer_.SetLedger(ledger_.get());
  trainers_.Start(ledger_.get());
  ReadOnAndOn();
  Trouble();
  if (!failed()) Settle();
  report_.acknowledged += ledger_->acknowledged();
  trainers_.KillAll();
}

void SimRun::Delete() {
  if (failed()) return;
  if (options_.target.has_value()) {
    Aim();
  } else {
    faults_.Begin();
  }
  bool deleted = false;
  operator_.Delete(ledger_->lineage(), [&deleted] { deleted = true; });
  simulation_.RunUntil(In(kPatience), [&deleted] { return deleted; });
  // The next act begins in the middle of it, if it is done.
  if (!deleted) faults_.End();
  Expect([&deleted] { return deleted; }, "the optimizer cannot be deleted");
}

RunReport SimRun::Go() {
  const absl::Time began = simulation_.now();
  Watch();
  for (int act = 1; !failed(); ++act) {
    Act();
    if (options_.target.has_value() ? !Aim() : act == options_.acts) break;
    if (act == kMostTargetActs) {
      simulation_.Fail("stuck", absl::StrCat("failpoint \"", options_.target->point.name,
                                             "\" is not passed often enough"));
    }
    Delete();
  }
  report_.failures = simulation_.failures();
  report_.trace_hash = simulation_.trace_hash();
  report_.events = simulation_.events();
  report_.virtual_time = simulation_.now() - began;
  report_.probes = simulation_.probes();
  report_.fired = failpoints_.fired();
  return std::move(report_);
}

}  // namespace

RunOptions OptionsOf(uint64_t seed) {
  // Of its own: the run begins with fresh numbers.
  Random random(seed ^ 0x5eed);
  RunOptions options;
  options.seed = seed;
  const uint64_t durability = random.Below(20);
  if (durability == 0) options.durability = Durability::kNone;
  if (durability > 0 && durability < 6) options.durability = Durability::kCheckpoint;
  options.workload.synchronous = random.Chance(0.5);
  options.workload.large = random.Chance(0.15);
  options.acts = random.Chance(0.2) ? 2 : 1;
  options.trouble = random.Between(absl::Seconds(5), absl::Seconds(40));
  options.workload.coupled = random.Chance(0.25);
  return options;
}

RunReport Simulate(const RunOptions& options) { return SimRun(options).Go(); }

}  // namespace shardstep
