// Processes that stand still (SIGSTOP) and go on: nobody is expelled, and a server whose place was
// taken meanwhile changes nothing any more.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "shardstep/client/client.h"
#include "shardstep/tests/child_process.h"
#include "shardstep/tests/eventually.h"
#include "shardstep/tests/faults/ledger_fleet.h"
#include "shardstep/tests/faults/ledger_model.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/fleet_file.h"

namespace shardstep {
namespace {

constexpr absl::Duration kLease = absl::Seconds(1);
// What a server ends with that must end at once.
constexpr int kFatal = 3;

std::vector<uint64_t> SessionsOf(const MiniFleet& fleet) {
  std::vector<uint64_t> numbers;
  const absl::StatusOr<Client> client = Client::Connect(fleet.fleet_file());
  EXPECT_OK(client.status());
  const auto sessions = Client(*client).ListSessions(kLedgerOptimizer);
  EXPECT_OK(sessions.status());
  for (const SessionSummary& session : *sessions) {
    EXPECT_FALSE(session.lapsed);
    numbers.push_back(session.session);
  }
  return numbers;
}

class PauseTest : public testing::TestWithParam<int> {};

TEST_P(PauseTest, LongerThanALeaseExpelsNobody) {
  LedgerFleetOptions options;
  options.fleet.lease = kLease;
  LedgerFleet run(options);
  ASSERT_OK(run.Start());
  const std::vector<uint64_t> before = SessionsOf(run.servers());
  ASSERT_OK(run.servers().Pause(GetParam()));
  absl::SleepFor(3 * kLease);  // the fault
  const uint64_t version = run.MaxAcknowledged();
  ASSERT_OK(run.servers().Resume(GetParam()));
  ASSERT_OK(run.AwaitBeyond(version + 5));
  EXPECT_EQ(SessionsOf(run.servers()), before);
  ASSERT_OK_AND_ASSIGN(const LedgerVerdict verdict, run.End());
  EXPECT_TRUE(verdict.good()) << verdict.ToString();
  EXPECT_EQ(verdict.overdue_ms, 0);
}

INSTANTIATE_TEST_SUITE_P(OfTheCoordinatorAndOfAnother, PauseTest, testing::Values(0, 1));

TEST(FencingTest, AServerWhosePlaceWasTakenChangesNothingAnyMore) {
  LedgerFleet run({});
  ASSERT_OK(run.Start());
  MiniFleet& servers = run.servers();
  ASSERT_OK(servers.Pause(0));

  const std::string copy = servers.data_directory(0) + "-copy";
  std::filesystem::copy(servers.data_directory(0), copy, std::filesystem::copy_options::recursive);
  const std::string address_file = copy + "/address";
  ASSERT_OK_AND_ASSIGN(
      const std::unique_ptr<ChildProcess> second,
      ChildProcess::Start({RunfilePath("server/shardstep-server"), "--fleet", servers.fleet_file(),
                           "--rank", "0", "--data", copy, "--address-file", address_file},
                          copy + "/log"));
  FleetFile fleet = FleetFile::Load(servers.fleet_file()).value();
  ASSERT_TRUE(Eventually([&] { return bool(std::ifstream(address_file) >> fleet.servers[0]); }))
      << second->LogTail();
  ASSERT_OK(fleet.Write(servers.fleet_file()));

  // The trainers find out when their connections to the one that hangs are given up.
  const uint64_t version = run.MaxAcknowledged();
  ASSERT_OK(run.AwaitBeyond(version + 5));
  ASSERT_OK(servers.Resume(0));
  ASSERT_OK_AND_ASSIGN(const int code, servers.AwaitExit(0, absl::Minutes(1)));
  EXPECT_EQ(code, kFatal);
  EXPECT_THAT(servers.LogTail(0), testing::HasSubstr("was replaced by"));
  ASSERT_OK_AND_ASSIGN(const LedgerVerdict verdict, run.End());
  EXPECT_TRUE(verdict.good()) << verdict.ToString();
  EXPECT_GT(verdict.version, version + 5);
}

}  // namespace
}  // namespace shardstep
