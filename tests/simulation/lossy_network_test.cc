// A network that loses a fifth of all calls and replies, breaks off a fifth of all pushes, delivers
// a fifth twice, and lets them be late and overtake one another: sums are exact, and what servers
// keep of calls and pushes does not grow with the run.
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <utility>

#include "gtest/gtest.h"
#include "shardstep/tests/simulation/sim_run.h"

namespace shardstep {
namespace {

constexpr uint64_t kSeed = 6;
// Of all trainers together: each step is a push at least.
constexpr uint64_t kSteps = 100'000;
// More than those of one step have on all servers.
constexpr uint64_t kBytesOfLivePushes = 2048;

TEST(LossyNetworkTest, SumsAreExactAndNothingGrows) {
  for (const bool synchronous : {true, false}) {
    RunOptions options;
    options.seed = kSeed;
    std::printf("seed %" PRIu64 "\n", options.seed);
    options.workload.synchronous = synchronous;
    options.lossy.emplace();
    options.lossy->faults.lost = options.lossy->faults.repeated = 0.2;
    options.lossy->faults.late = 0.05;
    // Of a message; a push has about seven.
    options.lossy->faults.breaks = 0.03;
    options.lossy->steps = kSteps / 2;
    const RunReport report = Simulate(options);
    ASSERT_TRUE(report.failures.empty()) << report.failures[0];
    EXPECT_GE(report.acknowledged, kSteps / 2);
    // It was as bad as it was to be: of the pushes of a step one goes to each server.
    const uint64_t fifth = report.acknowledged / 5;
    const std::pair<const char*, uint64_t> least[] = {
        {"call_lost", fifth},
        {"call_repeated", fifth},
        {"reply_lost", fifth},
        {"push_sent_again", options.workload.servers * fifth},
        {"push_strayed", options.workload.servers * fifth},
        {"recorded_reply_given", 1},
        {"missing_pushed_again", 1},
    };
    for (const auto& [name, times] : least) EXPECT_GE(report.probes.count(name), times) << name;
    ASSERT_EQ(report.memory.size(), 10u);
    const uint64_t calls_at_first = report.memory[0].calls;
    ASSERT_GT(calls_at_first, 0u);
    for (const RunReport::Memory& memory : report.memory) {
      std::printf("%" PRIu64 " bytes of calls, %" PRIu64 " of pushes\n", memory.calls,
                  memory.pushes);
      // Numbers become a digit longer.
      EXPECT_LE(memory.calls, calls_at_first + calls_at_first / 4);
      EXPECT_LE(memory.pushes, kBytesOfLivePushes);
    }
  }
}

}  // namespace
}  // namespace shardstep
