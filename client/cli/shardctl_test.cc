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

Result Shardctl(const std::string& line) {
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
  for (const std::string verb :
       {"fleet status", "fleet down", "optimizers", "describe digits", "sessions digits",
        "delete digits", "delete digits --yes", "checkpoint digits", "checkpoints digits",
        "verify digits", "restore digits", "restore digits --id 1-0",
        "state-dict digits --out digits.safetensors"}) {
    const Result result = Shardctl(verb);
    EXPECT_EQ(result.code, kFleetUnavailable) << verb;
    EXPECT_EQ(result.err, NoSuchFile("fleet.json")) << verb;
    EXPECT_EQ(result.out, "") << verb;
  }
}

TEST(ShardctlTest, TheFlagComesBeforeTheVariableAndThatBeforeTheDefault) {
  setenv("SHARDSTEP_FLEET", "variable.json", 1);
  EXPECT_EQ(Shardctl("optimizers").err, NoSuchFile("variable.json"));
  EXPECT_EQ(Shardctl("optimizers --fleet flag.json").err, NoSuchFile("flag.json"));
  unsetenv("SHARDSTEP_FLEET");
}

TEST(ShardctlTest, AFleetFileThatIsWrongIsRefused) {
  const std::string path = ::testing::TempDir() + "/wrong.json";
  std::ofstream(path) << "{}";
  const Result result = Shardctl("fleet status --fleet " + path);
  EXPECT_EQ(result.code, kRefused);
  EXPECT_THAT(result.err, StartsWith(absl::StrCat("shardctl: fleet file \"", path, "\": ")));
}

TEST(ShardctlTest, AServerThatIsAwayIsPartOfTheStatus) {
  const std::string path = ::testing::TempDir() + "/away.json";
  std::ofstream(path)
      << R"({"name": "away", "durability": "none", "servers": [{"address": "127.0.0.1:1"}]})";
  const Result result = Shardctl("fleet status --json --fleet " + path);
  EXPECT_EQ(result.code, kFleetUnavailable);
  EXPECT_THAT(result.out, HasSubstr("\"answers\": false"));
  EXPECT_THAT(result.out, HasSubstr("\"error\": \"connection refused, "));
  EXPECT_THAT(result.err, StartsWith("shardctl: server 0 at 127.0.0.1:1: connection refused, "));
}

TEST(ShardctlTest, DownWithoutRunningServersIsDone) {
  const std::string dir = ::testing::TempDir() + "/down";
  std::filesystem::create_directories(dir + "/server-0");
  std::ofstream(dir + "/fleet.json")
      << R"({"name": "down", "durability": "none", "servers": [{"address": "127.0.0.1:1"}]})";
  std::ofstream(dir + "/server-0/LOCK") << "1\n";
  const Result result = Shardctl("fleet down --fleet " + dir + "/fleet.json");
  EXPECT_EQ(result.code, kDone) << result.err;
  EXPECT_THAT(result.out, HasSubstr("     0        -  not running\n"));
}

TEST(ShardctlTest, UpSaysWhyAServerEnded) {
  const std::string program = ::testing::TempDir() + "/refuses.sh";
  std::ofstream(program) << "#!/bin/sh\necho no memory >&2\nexit 1\n";
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  const Result result = Shardctl(absl::StrCat("fleet up --servers 2 --dir ", ::testing::TempDir(),
                                              "/refuses --server-binary ", program));
  EXPECT_EQ(result.code, kFleetUnavailable);
  EXPECT_THAT(result.err, HasSubstr("has ended: exit status 1\n    no memory\n"));
}

TEST(ShardctlTest, UpRefusesWhatItCannotStart) {
  const Result result = Shardctl("fleet up --servers 1 --dir d --server-binary /no/such/program");
  EXPECT_EQ(result.code, kRefused);
  EXPECT_EQ(result.err, "shardctl: --server-binary \"/no/such/program\": not a program\n");
  EXPECT_EQ(Shardctl("fleet up --servers 1 --dir d --name a/b --server-binary /bin/true").code,
            kRefused);
}

TEST(ShardctlTest, WrongUsageHasItsOwnCode) {
  for (const std::string line :
       {"", "flet", "fleet", "fleet up", "fleet up --servers 0 --dir d", "fleet up --servers 3",
        "optimizers extra", "optimizers --flet x", "fleet up --servers 1 --dir d --durability raid",
        "describe", "sessions", "delete --yes", "fleet status --fleet", "checkpoint", "checkpoints",
        "verify --id 1-0", "restore digits 1-0", "restore digits --id", "state-dict digits"}) {
    const Result result = Shardctl(line);
    EXPECT_EQ(result.code, kUsage) << line;
    EXPECT_NE(result.err, "") << line;
  }
}

// The explanations begin in this column, on a flag's line or, behind a long flag, on the next.
constexpr size_t kExplanationColumn = 30;

std::string ExplanationOf(const std::string& flag_line, const std::string& next_line) {
  const std::string explained =
      flag_line.size() > kExplanationColumn && flag_line[kExplanationColumn - 1] == ' ' ? flag_line
                                                                                        : next_line;
  if (explained.size() <= kExplanationColumn) return "";
  const std::string before = explained.substr(0, kExplanationColumn);
  return explained == next_line && before.find_first_not_of(' ') != std::string::npos
             ? ""
             : explained.substr(kExplanationColumn);
}

TEST(ShardctlTest, HelpExplainsEveryFlag) {
  EXPECT_THAT(Shardctl("--help").out,
              HasSubstr("Exit codes: 0 done, 1 refused, 2 wrong usage, 3 fleet unavailable"));
  for (const std::string verb :
       {"fleet up", "fleet down", "fleet status", "optimizers", "describe", "sessions",
        "checkpoint", "checkpoints", "verify", "restore", "state-dict", "delete"}) {
    const Result result = Shardctl(verb + " --help");
    EXPECT_EQ(result.code, kDone) << verb;
    const std::vector<std::string> lines = absl::StrSplit(result.out, '\n');
    int flags = 0;
    for (size_t i = 0; i + 1 < lines.size(); ++i) {
      if (lines[i].rfind("  -", 0) != 0) continue;
      ++flags;
      EXPECT_NE(ExplanationOf(lines[i], lines[i + 1]), "") << verb << ": " << lines[i];
    }
    EXPECT_GE(flags, 3) << verb;
  }
}

}  // namespace
}  // namespace shardstep
