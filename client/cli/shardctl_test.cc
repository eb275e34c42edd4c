#include "shardstep/client/cli/shardctl.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardstep {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Result {
  int code;
  std::string out;
  std::string err;
};

Result Run(const std::string& line) {
  std::ostringstream out;
  std::ostringstream err;
  const int code = RunShardctl(absl::StrSplit(line, ' ', absl::SkipEmpty()), out, err);
  return {code, out.str(), err.str()};
}

std::string NoSuchFile(const std::string& path) {
  return absl::StrCat(
      "shardctl: fleet file \"", path,
      "\": no such file; pass --fleet or set SHARDSTEP_FLEET (local: shardctl fleet up --servers 3 "
      "--dir D)\n");
}

TEST(ShardctlTest, EveryVerbSaysThatTheFleetFileIsMissing) {
  unsetenv("SHARDSTEP_FLEET");
  for (const std::string verb : {"fleet status", "fleet down", "optimizers", "describe digits",
                                 "sessions digits", "delete digits", "delete digits --yes"}) {
    const Result result = Run(verb);
    EXPECT_EQ(result.code, kFleetUnavailable) << verb;
    EXPECT_EQ(result.err, NoSuchFile("fleet.json")) << verb;
    EXPECT_EQ(result.out, "") << verb;
  }
}

TEST(ShardctlTest, TheFlagComesBeforeTheVariableAndThatBeforeTheDefault) {
  setenv("SHARDSTEP_FLEET", "variable.json", 1);
  EXPECT_EQ(Run("optimizers").err, NoSuchFile("variable.json"));
  EXPECT_EQ(Run("optimizers --fleet flag.json").err, NoSuchFile("flag.json"));
  unsetenv("SHARDSTEP_FLEET");
}

TEST(ShardctlTest, AFleetFileThatIsWrongIsRefused) {
  const std::string path = ::testing::TempDir() + "/wrong.json";
  std::ofstream(path) << "{}";
  const Result result = Run("fleet status --fleet " + path);
  EXPECT_EQ(result.code, kRefused);
  EXPECT_THAT(result.err, StartsWith(absl::StrCat("shardctl: fleet file \"", path, "\": ")));
}

TEST(ShardctlTest, AServerThatIsAwayIsPartOfTheStatus) {
  const std::string path = ::testing::TempDir() + "/away.json";
  std::ofstream(path) << R"({"name": "away", "servers": [{"address": "127.0.0.1:1"}]})";
  const Result result = Run("fleet status --fleet " + path);
  EXPECT_EQ(result.code, kFleetUnavailable);
  EXPECT_THAT(result.out, HasSubstr("fleet \"away\""));
  EXPECT_THAT(result.out, HasSubstr("     0  127.0.0.1:1"));
  EXPECT_THAT(result.err, StartsWith("shardctl: server 0 at 127.0.0.1:1: "));
  const Result json = Run("fleet status --json --fleet " + path);
  EXPECT_EQ(json.code, kFleetUnavailable);
  EXPECT_THAT(json.out, HasSubstr("\"answers\": false"));
}

TEST(ShardctlTest, DownWithoutRunningServersIsDone) {
  const std::string dir = ::testing::TempDir() + "/down";
  std::filesystem::create_directories(dir + "/server-0");
  std::ofstream(dir + "/fleet.json")
      << R"({"name": "down", "servers": [{"address": "127.0.0.1:1"}]})";
  std::ofstream(dir + "/server-0/LOCK") << "1\n";
  const Result result = Run("fleet down --fleet " + dir + "/fleet.json");
  EXPECT_EQ(result.code, kDone) << result.err;
  EXPECT_THAT(result.out, HasSubstr("     0        -  not running\n"));
}

TEST(ShardctlTest, UpSaysWhyAServerEnded) {
  const std::string program = ::testing::TempDir() + "/refuses.sh";
  std::ofstream(program) << "#!/bin/sh\necho no memory >&2\nexit 1\n";
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  const Result result = Run(absl::StrCat("fleet up --servers 2 --dir ", ::testing::TempDir(),
                                         "/refuses --server-binary ", program));
  EXPECT_EQ(result.code, kFleetUnavailable);
  EXPECT_THAT(result.err, HasSubstr("has ended: exit status 1\n    no memory\n"));
}

TEST(ShardctlTest, UpRefusesWhatItCannotStart) {
  const Result result = Run("fleet up --servers 1 --dir d --server-binary /no/such/program");
  EXPECT_EQ(result.code, kRefused);
  EXPECT_EQ(result.err, "shardctl: --server-binary \"/no/such/program\": not a program\n");
  EXPECT_EQ(Run("fleet up --servers 1 --dir d --name a/b --server-binary /bin/true").code,
            kRefused);
}

TEST(ShardctlTest, WrongUsageHasItsOwnCode) {
  for (const std::string line : {"", "flet", "fleet", "fleet up", "fleet up --servers 0 --dir d",
                                 "fleet up --servers 3", "optimizers extra", "optimizers --flet x",
                                 "describe", "sessions", "delete --yes", "fleet status --fleet"}) {
    const Result result = Run(line);
    EXPECT_EQ(result.code, kUsage) << line;
    EXPECT_NE(result.err, "") << line;
  }
}

TEST(ShardctlTest, HelpExplainsEveryFlag) {
  EXPECT_THAT(Run("--help").out,
              HasSubstr("Exit codes: 0 done, 1 refused, 2 wrong usage, 3 fleet unavailable"));
  for (const std::string verb :
       {"fleet up", "fleet down", "fleet status", "optimizers", "describe", "sessions", "delete"}) {
    const Result result = Run(verb + " --help");
    EXPECT_EQ(result.code, kDone) << verb;
    int flags = 0;
    for (const std::string& line : absl::StrSplit(result.out, '\n')) {
      const size_t flag = line.find("--");
      if (flag == std::string::npos) continue;
      ++flags;
      // The explanation stands on the flag's line or, where the flag is long, on the next.
      EXPECT_TRUE(line.find("  ", flag) != std::string::npos ||
                  line.find(' ', flag) != std::string::npos)
          << line;
    }
    EXPECT_GE(flags, 3) << verb;
    EXPECT_THAT(result.out, HasSubstr("--json")) << verb;
  }
}

}  // namespace
}  // namespace shardstep
