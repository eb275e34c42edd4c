// Every failpoint of the product on real processes: a server dies there, comes back, and the same
// trainers go on, with nothing lost and nothing twice. And once an error, and once a delay.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "shardstep/tests/eventually.h"
#include "shardstep/tests/faults/errands.h"
#include "shardstep/tests/faults/ledger_fleet.h"
#include "shardstep/tests/simulation/failpoint_list.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

constexpr int kServers = 3;
constexpr int kKilled = 128 + SIGKILL;
constexpr int kFatal = 3;

// With an optimizer that needs sums over all servers, or without.
class FailpointsTest : public testing::TestWithParam<bool> {
 protected:
  FailpointsTest() : run_(Options()) {}
  void SetUp() override {
    ASSERT_OK(run_.Start());
    errands_.emplace(run_.servers().fleet_file());
  }

  LedgerFleetOptions Options() {
    LedgerFleetOptions options;
    options.coupled = GetParam();
    options.fleet.server_program = "server/faulty-server";
    options.fleet.environment = [this](int server) {
      std::vector<std::string> set;
      if (server == armed_server_) set.push_back("SHARDSTEP_FAILPOINTS=" + armed_);
      return set;
    };
    return options;
  }

  // Starts a server again with these failpoints; OK also where it does not get far.
  void RestartArmed(int server, const std::string& failpoints) {
    armed_server_ = server;
    armed_ = failpoints;
    static_cast<void>(run_.servers().Restart(server));
    armed_server_ = -1;
  }

  // Waits until the server has ended there. Another one's restart now and then makes it abort
  // steps, and follow a new coordinator.
  int AwaitEnd(int server) {
    constexpr int kRounds = 30;
    for (int round = 0; round < kRounds; ++round) {
      const absl::StatusOr<int> code = run_.servers().AwaitExit(server, absl::Seconds(3));
      if (code.ok()) return *code;
      if (errands_->ended()) {
        ADD_FAILURE() << errands_->Stop();
        return 0;
      }
      EXPECT_OK(run_.servers().Restart((server + 1 + round % 2) % kServers));
    }
    return 0;
  }

  void ExpectTrainersGoOn() { ASSERT_OK(run_.AwaitBeyond(run_.MaxAcknowledged() + 1)); }

  void ExpectGood() {
    EXPECT_OK(errands_->Stop());
    EXPECT_GT(errands_->rounds(), 0);
    ASSERT_OK_AND_ASSIGN(const LedgerVerdict verdict, run_.End());
    EXPECT_TRUE(verdict.good()) << verdict.ToString();
    EXPECT_EQ(verdict.overdue_ms, 0);
  }

  int armed_server_ = -1;
  std::string armed_;
  LedgerFleet run_;
  std::optional<Errands> errands_;
};

INSTANTIATE_TEST_SUITE_P(, FailpointsTest, testing::Bool(), [](const auto& info) {
  return info.param ? "WithSumsOverAllServers" : "WithoutSums";
});

TEST_P(FailpointsTest, AServerDiesAtEachOfThem) {
  int turn = 0;
  for (const Failpoint& point : AllFailpoints()) {
    if (point.coupled != GetParam()) continue;
    SCOPED_TRACE(point.name);
    const int server = point.where == Failpoint::Where::kCoordinator ? 0 : turn++ % kServers;
    RestartArmed(server, absl::StrCat(point.name, "=crash@1"));
    ASSERT_EQ(AwaitEnd(server), kKilled) << "errands: " << errands_->doing() << "\n"
                                         << run_.servers().LogTail(server);
    ASSERT_OK(run_.servers().Restart(server));
    ASSERT_NO_FATAL_FAILURE(ExpectTrainersGoOn());
  }
  ExpectGood();
}

TEST_P(FailpointsTest, ASyncThatFailsEndsTheProcessAndAPauseOnlyTakesTime) {
  RestartArmed(1, "log.sync=error@5");
  ASSERT_EQ(AwaitEnd(1), kFatal);
  EXPECT_THAT(run_.servers().LogTail(1), testing::HasSubstr("failpoint log.sync"));
  const absl::Time begun = absl::Now();
  RestartArmed(1, "log.sync=delay@5;host.commit=delay@9;host.push_arrived=error@3");
  ASSERT_OK(run_.AwaitBeyond(run_.MaxAcknowledged() + 20));
  // Two pauses of half a second, on two threads: they may lie beside each other.
  EXPECT_GE(absl::Now() - begun, absl::Milliseconds(500));
  ExpectGood();
}

}  // namespace
}  // namespace shardstep
