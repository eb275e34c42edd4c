// Whole fleets in one thread, one seed each: servers and trainers die, hang and start again, disks
// and networks fail, and nothing that was acknowledged is lost, nothing is applied twice.
//
//   bazel-bin/tests/simulation/simulation_test [--seeds=1000] [--first=1]
//   bazel-bin/tests/simulation/simulation_test --seed=N        one run, with its trace
//   bazel-bin/tests/simulation/simulation_test --bug=skip_sync --until-failure    must find it
//
// Exits with 1 and names the seeds if a run failed, two runs of a seed differed, or a probe was
// never hit.
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "shardstep/server/faults.h"
#include "shardstep/tests/simulation/probes.h"
#include "shardstep/tests/simulation/sim_run.h"

namespace shardstep {
namespace {

// Every so many seeds one is run twice.
constexpr uint64_t kTwice = 20;
// With fewer seeds chance may leave a probe out.
constexpr uint64_t kEnoughForProbes = 1000;

// Seeds that once showed a mistake; run first.
struct KeptSeed {
  uint64_t seed;
  Durability durability;
  int acts;
};
constexpr KeptSeed kKeptSeeds[] = {
    // Dead before the first checkpoint: recovered for ever.
    {131, Durability::kCheckpoint, 1},
    // A reply of an old lineage with the new one's durable version.
    {189, Durability::kCheckpoint, 1},
    // A dead session was set back to nothing.
    {283, Durability::kCheckpoint, 1},
    // A creation was refused because its checkpoint failed once.
    {683, Durability::kCheckpoint, 1},
    // The trainers' states outlived the optimizer.
    {52, Durability::kCheckpoint, 2},
    // A disk was full when a creation was committed: recovered for ever.
    {82, Durability::kCheckpoint, 2},
    // A replaced server set trainers back to the lineage that it knew.
    {197, Durability::kCheckpoint, 2},
    // A disk's error at start was taken for a loss.
    {41, Durability::kWal, 1},
    // A reply whose version was not called durable yet.
    {135, Durability::kWal, 1},
    // A new session did not wait for a step in doubt.
    {775, Durability::kWal, 1},
    // A decision that was applied and not synced was forgotten.
    {818, Durability::kWal, 1},
    // The trainers' states outlived the optimizer.
    {3, Durability::kWal, 2},
    // A deletion was settled for ever.
    {5, Durability::kWal, 2},
    // A disk's error in the middle of a deletion was taken for a loss.
    {172, Durability::kWal, 2},
    // A creation behind a deletion in doubt crashed.
    {208, Durability::kWal, 2},
    // A deletion in doubt was taken for a loss.
    {590, Durability::kWal, 2},
    // A session was open although a server did not know it yet.
    {1785, Durability::kWal, 2},
    // A late copy of a deletion deleted what was created anew.
    {2102, Durability::kWal, 2},
};

class Suite {
 public:
  // Runs it, twice if `twice`, and tells what is wrong.
  void RunOne(const RunOptions& options, bool twice) {
    const RunReport report = Simulate(options);
    for (const std::string& failure : report.failures) Tell(options, failure);
    if (!report.failures.empty()) failed_.push_back(options.seed);
    if (twice && Simulate(options).trace_hash != report.trace_hash) {
      Tell(options, "two runs of it are not the same");
      failed_.push_back(options.seed);
    }
    ++runs_;
    probes_.Add(report.probes);
    events_ += report.events;
    acknowledged_ += report.acknowledged;
    virtual_time_ += report.virtual_time;
  }

  bool failed() const { return !failed_.empty(); }

  bool Judge(bool all_probes) {
    for (const std::string& name : Probes::Names()) {
      std::printf("probe %-40s %" PRIu64 "\n", name.c_str(), probes_.count(name));
    }
    const std::vector<std::string> missed =
        all_probes ? probes_.Missed() : std::vector<std::string>();
    if (!missed.empty()) std::printf("never hit: %s\n", absl::StrJoin(missed, ", ").c_str());
    if (!failed_.empty()) std::printf("failed seeds: %s\n", absl::StrJoin(failed_, ", ").c_str());
    std::printf("%" PRIu64 " runs, %.0f s of virtual time, %" PRIu64 " events, %" PRIu64
                " steps acknowledged, %zu failed\n",
                runs_, absl::ToDoubleSeconds(virtual_time_), events_, acknowledged_,
                failed_.size());
    return failed_.empty() && missed.empty();
  }

 private:
  static void Tell(const RunOptions& options, const std::string& what) {
    std::printf("seed %" PRIu64 " (durability %d, %d acts): %s\n", options.seed,
                static_cast<int>(options.durability), options.acts, what.c_str());
    std::fflush(stdout);
  }

  uint64_t runs_ = 0;
  uint64_t events_ = 0;
  uint64_t acknowledged_ = 0;
  absl::Duration virtual_time_;
  Probes probes_;
  std::vector<uint64_t> failed_;
};

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  CLI::App app("Simulated fleets, one for each seed.", "simulation_test");
  uint64_t seeds = 1000;
  uint64_t first = 1;
  std::optional<uint64_t> one;
  std::optional<int> durability;
  std::optional<int> acts;
  std::optional<bool> coupled;
  app.add_option("--seeds", seeds, "How many")->capture_default_str();
  app.add_option("--first", first, "The first of them")->capture_default_str();
  app.add_option("--seed", one, "Only this one, with its trace");
  app.add_option("--durability", durability, "0: none, 1: checkpoint, 2: wal; else by seed");
  app.add_option("--acts", acts, "How many acts; else by seed");
  app.add_option("--coupled", coupled, "Whether steps need sums over all shards; else by seed");
  std::string bug;
  app.add_option("--bug", bug, "A mistake for the servers to make (server/faults.h)");
  bool until_failure = false;
  app.add_flag("--until-failure", until_failure, "End with the first run that fails");
  CLI11_PARSE(app, argc, argv);
  const auto options_of = [&](uint64_t seed) {
    shardstep::RunOptions options = shardstep::OptionsOf(seed);
    if (durability.has_value())
      options.durability = static_cast<shardstep::Durability>(*durability);
    if (acts.has_value()) options.acts = *acts;
    if (coupled.has_value()) options.workload.coupled = *coupled;
    return options;
  };
  shardstep::faults::SetBug(bug);
  shardstep::Suite suite;
  if (one.has_value()) {
    shardstep::RunOptions options = options_of(*one);
    options.print = true;
    suite.RunOne(options, /*twice=*/false);
    return suite.Judge(/*all_probes=*/false) ? 0 : 1;
  }
  std::printf("--seeds=%" PRIu64 " --first=%" PRIu64 "\n", seeds, first);
  const auto over = [&] { return until_failure && suite.failed(); };
  for (const shardstep::KeptSeed& kept : shardstep::kKeptSeeds) {
    if (over()) break;
    shardstep::RunOptions options = shardstep::OptionsOf(kept.seed);
    options.durability = kept.durability;
    options.acts = kept.acts;
    options.workload.coupled = false;  // as they were found
    suite.RunOne(options, /*twice=*/true);
  }
  for (uint64_t seed = first; seed < first + seeds && !over(); ++seed) {
    suite.RunOne(options_of(seed), seed % shardstep::kTwice == 0);
  }
  return suite.Judge(seeds >= shardstep::kEnoughForProbes && !over()) ? 0 : 1;
}
