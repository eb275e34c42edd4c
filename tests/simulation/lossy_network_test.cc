// A network that loses a fifth of all calls and replies, delivers a fifth twice, and lets them be
// late and overtake one another: sums are exact, and what servers keep of calls and pushes does not
// grow with the run.
#include <algorithm>
#include <cstdint>
#include <cstdio>

#include "gtest/gtest.h"
#include "shardstep/tests/simulation/sim_run.h"

namespace shardstep {
namespace {

constexpr uint64_t kSeed = 6;
// Of all trainers together: each step is a push at least.
constexpr uint64_t kSteps = 100'000;

TEST(LossyNetworkTest, SumsAreExactAndNothingGrows) {
  for (const bool synchronous : {true, false}) {
    RunOptions options;
    options.seed = kSeed;
    std::printf("seed %llu\n", static_cast<unsigned long long>(options.seed));
    options.workload.synchronous = synchronous;
    options.lossy.emplace();
    options.lossy->faults.lost = options.lossy->faults.repeated = 0.2;
    options.lossy->faults.late = 0.05;
    options.lossy->faults.breaks = 0.002;
    options.lossy->steps = kSteps / 2;
    const RunReport report = Simulate(options);
    EXPECT_TRUE(report.failures.empty()) << report.failures[0];
    EXPECT_GE(report.acknowledged, kSteps / 2);
    ASSERT_EQ(report.memory.size(), 10u);
    RunReport::Memory first;
    RunReport::Memory second;
    for (int tenth = 0; tenth < 10; ++tenth) {
      RunReport::Memory& half = tenth < 5 ? first : second;
      half.calls = std::max(half.calls, report.memory[tenth].calls);
      half.pushes = std::max(half.pushes, report.memory[tenth].pushes);
      std::printf("tenth %d: %llu bytes of calls, %llu of pushes\n", tenth + 1,
                  static_cast<unsigned long long>(report.memory[tenth].calls),
                  static_cast<unsigned long long>(report.memory[tenth].pushes));
    }
    ASSERT_GT(first.calls, 0u);
    // Numbers become a digit longer.
    EXPECT_LE(second.calls, first.calls + first.calls / 4);
    EXPECT_LE(second.pushes, 2 * first.pushes + 4096);
  }
}

}  // namespace
}  // namespace shardstep
