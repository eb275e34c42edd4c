#include "shardstep/client/cli/local_fleet.h"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr absl::Duration kLong = absl::Seconds(60);

// A program in the server's place: a shell script that finds $rank, $address, $data and $keep
// set.
std::string Script(const std::string& name, const std::string& body) {
  const std::string path = ::testing::TempDir() + "/" + name + ".sh";
  std::ofstream(path)
      << "#!/bin/sh\nwhile [ $# -gt 0 ]; do case $1 in\n--rank) rank=$2;;\n--address-file) "
         "address=$2;;\n--data) data=$2;;\n--keep-last) keep=$2;;\nesac; shift 2; done\n"
      << body << "\n";
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  return path;
}

std::string FreshDirectory(const std::string& name) {
  const std::string dir = ::testing::TempDir() + "/" + name;
  std::filesystem::remove_all(dir);
  return dir;
}

// The shell waits for `sleep`, so a trap would come late: `wait` makes it prompt. Who finds the
// address may end it.
constexpr char kServe[] =
    "trap 'echo drained >>$data/ended; kill $!; exit 0' TERM\n"
    "sleep 600 &\n"
    "echo 127.0.0.1:$((7400 + rank)) >$address\n"
    "wait";

TEST(LocalFleetTest, StartsServersAndLearnsTheirAddresses) {
  SignalWait signals;
  const std::string dir = FreshDirectory("addresses");
  ASSERT_OK_AND_ASSIGN(LocalFleet fleet,
                       LocalFleet::Start(Script("serve", kServe), dir, 3, {}, &signals));
  EXPECT_THAT(fleet.WaitForAddresses(kLong),
              IsOkAndHolds(ElementsAre("127.0.0.1:7400", "127.0.0.1:7401", "127.0.0.1:7402")));
  std::ostringstream err;
  fleet.Stop(err);
  EXPECT_EQ(err.str(), "");
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_TRUE(std::filesystem::exists(ServerDirectory(dir, rank) + "/ended")) << rank;
  }
}

TEST(LocalFleetTest, HandsFlagsToEveryServer) {
  SignalWait signals;
  const std::string dir = FreshDirectory("flags");
  const std::string program = Script("keeps", "echo keeps:$keep >$address; exec sleep 600");
  ASSERT_OK_AND_ASSIGN(LocalFleet fleet,
                       LocalFleet::Start(program, dir, 2, {"--keep-last", "7"}, &signals));
  EXPECT_THAT(fleet.WaitForAddresses(kLong), IsOkAndHolds(ElementsAre("keeps:7", "keeps:7")));
}

TEST(LocalFleetTest, TakesNoAddressOfAnEarlierRun) {
  SignalWait signals;
  const std::string dir = FreshDirectory("stale");
  std::filesystem::create_directories(ServerDirectory(dir, 0));
  std::ofstream(ServerDirectory(dir, 0) + "/address") << "127.0.0.1:1\n";
  std::ofstream(FleetFilePath(dir)) << "{}";
  ASSERT_OK_AND_ASSIGN(LocalFleet fleet,
                       LocalFleet::Start(Script("silent", "exec sleep 600"), dir, 1, {}, &signals));
  EXPECT_FALSE(std::filesystem::exists(FleetFilePath(dir)));
  EXPECT_THAT(fleet.WaitForAddresses(absl::Milliseconds(1)).status(),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("server 0 has no address")));
}

TEST(LocalFleetTest, ReportsAServerThatEndsWithTheLastLinesOfItsLog) {
  SignalWait signals;
  const std::string program = Script(
      "dies",
      absl::StrCat("[ $rank = 1 ] && { seq 1 30; echo 'port taken' >&2; exit 3; }\n", kServe));
  ASSERT_OK_AND_ASSIGN(LocalFleet fleet,
                       LocalFleet::Start(program, FreshDirectory("early_death"), 2, {}, &signals));
  EXPECT_THAT(fleet.WaitForAddresses(kLong).status(),
              StatusIs(absl::StatusCode::kUnavailable,
                       AllOf(HasSubstr("server 1 has ended: exit status 3"),
                             HasSubstr("\n    30\n    port taken"), Not(HasSubstr("\n    20\n")))));
}

TEST(LocalFleetTest, ReportsNothingThatAnEarlierRunLogged) {
  SignalWait signals;
  const std::string dir = FreshDirectory("old_log");
  std::filesystem::create_directories(ServerDirectory(dir, 0));
  std::ofstream(ServerDirectory(dir, 0) + "/log") << "of an earlier run\n";
  ASSERT_OK_AND_ASSIGN(
      LocalFleet fleet,
      LocalFleet::Start(Script("short", "echo of this run; exit 1"), dir, 1, {}, &signals));
  EXPECT_THAT(fleet.WaitForAddresses(kLong).status(),
              StatusIs(absl::StatusCode::kUnavailable,
                       "server 0 has ended: exit status 1\n    of this run"));
}

TEST(LocalFleetTest, SaysWhatItWaitedForInVain) {
  SignalWait signals;
  const std::string dir = FreshDirectory("silent");
  ASSERT_OK_AND_ASSIGN(LocalFleet fleet,
                       LocalFleet::Start(Script("silent", "exec sleep 600"), dir, 1, {}, &signals));
  EXPECT_THAT(fleet.WaitForAddresses(absl::Milliseconds(1)).status(),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("server 0 has no address after 1ms; see ")));
}

TEST(LocalFleetTest, CtrlCEndsTheWait) {
  SignalWait signals;
  const std::string dir = FreshDirectory("interrupted");
  ASSERT_OK_AND_ASSIGN(LocalFleet fleet,
                       LocalFleet::Start(Script("silent", "exec sleep 600"), dir, 1, {}, &signals));
  ASSERT_EQ(kill(getpid(), SIGINT), 0);
  EXPECT_THAT(fleet.WaitForAddresses(kLong).status(),
              StatusIs(absl::StatusCode::kCancelled, "interrupted"));
}

TEST(LocalFleetTest, WatchTellsOfEachServerThatEnds) {
  SignalWait signals;
  const std::string dir = FreshDirectory("watched");
  ASSERT_OK_AND_ASSIGN(
      LocalFleet fleet,
      LocalFleet::Start(Script("brief", "echo bye $rank; kill -9 $$"), dir, 2, {}, &signals));
  std::ostringstream err;
  EXPECT_THAT(fleet.Watch(err), StatusIs(absl::StatusCode::kUnavailable, "all servers have ended"));
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_THAT(err.str(),
                HasSubstr(absl::StrCat("server ", rank, " has ended: killed by signal 9\n    bye ",
                                       rank, "\n")));
  }
}

TEST(LocalFleetTest, CtrlCEndsTheWatch) {
  SignalWait signals;
  const std::string dir = FreshDirectory("watch_interrupted");
  ASSERT_OK_AND_ASSIGN(LocalFleet fleet,
                       LocalFleet::Start(Script("silent", "exec sleep 600"), dir, 1, {}, &signals));
  ASSERT_EQ(kill(getpid(), SIGTERM), 0);
  std::ostringstream err;
  EXPECT_OK(fleet.Watch(err));
  EXPECT_EQ(err.str(), "");
}

TEST(LocalFleetTest, AProgramThatCannotRunIsAnErrorAtOnce) {
  SignalWait signals;
  EXPECT_THAT(
      LocalFleet::Start("/no/such/program", FreshDirectory("no_program"), 2, {}, &signals).status(),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"/no/such/program\"")));
}

TEST(LocalFleetTest, RefusesAFolderWhereAServerRuns) {
  SignalWait signals;
  const std::string dir = FreshDirectory("taken");
  const std::string program = Script(
      "locks",
      "exec 9>$data/LOCK; flock -n 9 || exit 1; echo $$ >&9; echo a:1 >$address; exec sleep 600");
  ASSERT_OK_AND_ASSIGN(LocalFleet fleet, LocalFleet::Start(program, dir, 1, {}, &signals));
  ASSERT_OK(fleet.WaitForAddresses(kLong));
  std::ofstream(FleetFilePath(dir)) << "{}";
  EXPECT_THAT(LocalFleet::Start(program, dir, 1, {}, &signals).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("server 0 of "), HasSubstr("runs already as process "),
                             HasSubstr("; shardctl fleet down --fleet "))));
  EXPECT_TRUE(std::filesystem::exists(FleetFilePath(dir)));
}

}  // namespace
}  // namespace shardstep
