// Durability "checkpoint": whenever a server dies, all return by themselves to a version that is
// not older than what the trainers were promised, and the same processes train on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "shardstep/sharding/test_seed.h"
#include "shardstep/tests/eventually.h"
#include "shardstep/tests/faults/ledger_fleet.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

constexpr int kKills = 50;
constexpr int kServers = 3;

TEST(RollbacksTest, FiftyDeathsOfOneOfThreeServers) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  std::mt19937_64 random(seed);
  LedgerFleetOptions options;
  options.fleet.durability = "checkpoint";
  options.fleet.checkpoint_interval = absl::Milliseconds(100);
  LedgerFleet run(options);
  ASSERT_OK(run.Start());
  const auto returns = [&run](int trainer) { return run.progress(trainer).rolled_back.load(); };
  for (int kill = 0; kill < kKills; ++kill) {
    SCOPED_TRACE(absl::StrCat("kill ", kill));
    absl::SleepFor(absl::Milliseconds(random() % 150));  // anywhere in a step or a checkpoint
    const uint64_t before[] = {returns(0), returns(1)};
    ASSERT_OK(run.servers().Restart(static_cast<int>(random() % kServers)));
    ASSERT_TRUE(Eventually([&] { return returns(0) > before[0] && returns(1) > before[1]; }))
        << run.AwaitBeyond(UINT64_MAX - 1, absl::ZeroDuration());
    const uint64_t version = std::min(run.progress(0).acknowledged, run.progress(1).acknowledged);
    ASSERT_OK(run.AwaitBeyond(version + 1));
  }
  ASSERT_OK_AND_ASSIGN(const LedgerVerdict verdict, run.End());
  // A gradient is a function of its version, so a history that was replaced leaves no trace.
  EXPECT_TRUE(verdict.good()) << verdict.ToString();
  EXPECT_GE(verdict.rolled_back, 2u * kKills);
  EXPECT_EQ(verdict.overdue_ms, 0);
}

}  // namespace
}  // namespace shardstep
