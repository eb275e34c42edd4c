// Every failpoint with every kind of fault, on every server that comes by it, ten times each: with
// durability "wal" nothing is lost and training goes on.
//
//   bazel-bin/tests/simulation/failpoint_matrix_test [--point=NAME] [--kind=crash] [--print]
#include <algorithm>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <string>

#include "CLI/CLI.hpp"
#include "shardstep/tests/simulation/failpoint_list.h"
#include "shardstep/tests/simulation/failpoints.h"
#include "shardstep/tests/simulation/sim_run.h"

namespace shardstep {
namespace {

constexpr uint64_t kTimes = 10;

// Whether it went well; `least`: how often it happened on the server where it happened least.
bool RunOne(const Failpoint& point, FaultKind kind, uint64_t seed, bool print, uint64_t* least) {
  RunOptions options;
  options.seed = seed;
  options.print = print;
  options.workload.synchronous = seed % 2 == 0;
  options.workload.coupled = point.coupled;
  options.target = {point, kind, kTimes};
  const RunReport report = Simulate(options);
  *least = UINT64_MAX;
  const int servers = point.where == Failpoint::Where::kCoordinator ? 1 : options.workload.servers;
  for (int server = 0; server < servers; ++server) {
    const auto fired = report.fired.find({point.name, server, kind});
    *least = std::min(*least, fired == report.fired.end() ? 0 : fired->second);
  }
  for (const std::string& failure : report.failures) {
    std::printf("%s at %s, seed %" PRIu64 ": %s\n", NameOf(kind), point.name, seed,
                failure.c_str());
  }
  return report.failures.empty() && *least >= kTimes;
}

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  CLI::App app("Every failpoint with every kind of fault.", "failpoint_matrix_test");
  std::string point_name;
  std::string kind_name;
  bool print = false;
  app.add_option("--point", point_name, "Only this failpoint");
  app.add_option("--kind", kind_name, "Only this kind of fault: crash, error or delay");
  app.add_flag("--print", print, "Print the trace");
  CLI11_PARSE(app, argc, argv);
  using shardstep::FaultKind;
  uint64_t seed = 0;
  int failed = 0;
  int run = 0;
  for (const shardstep::Failpoint& point : shardstep::AllFailpoints()) {
    for (const FaultKind kind : {FaultKind::kCrash, FaultKind::kError, FaultKind::kDelay}) {
      ++seed;
      if (kind == FaultKind::kError && !point.fallible) continue;
      if (!point_name.empty() && point_name != point.name) continue;
      if (!kind_name.empty() && kind_name != shardstep::NameOf(kind)) continue;
      uint64_t least = 0;
      const bool good = shardstep::RunOne(point, kind, seed, print, &least);
      std::printf("%-32s %-6s at least %" PRIu64 " times on %s%s\n", point.name,
                  shardstep::NameOf(kind), least,
                  point.where == shardstep::Failpoint::Where::kCoordinator ? "the coordinator"
                                                                           : "every server",
                  good ? "" : "  FAILED");
      std::fflush(stdout);
      ++run;
      failed += good ? 0 : 1;
    }
  }
  std::printf("%zu failpoints, %d runs, %d failed\n", shardstep::AllFailpoints().size(), run,
              failed);
  return run > 0 && failed == 0 ? 0 : 1;
}
