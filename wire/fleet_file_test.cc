#include "shardstep/wire/fleet_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/crc32c.h"

namespace shardstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kTwoServers[] = R"({
  "name": "digits", "durability": "none", "checkpoints": "/mnt/checkpoints",
  "servers": [{"address": "127.0.0.1:7400"}, {"address": "ps-1.example.org:7401"}]
})";

absl::StatusOr<FleetFile> Parse(absl::string_view json) { return FleetFile::Parse(json, "f.json"); }

std::string TestPath(const std::string& name) {
  return absl::StrCat(testing::TempDir(), "/", name);
}

TEST(FleetFileTest, Parses) {
  ASSERT_OK_AND_ASSIGN(const FleetFile fleet, Parse(kTwoServers));
  EXPECT_EQ(fleet.name, "digits");
  EXPECT_EQ(fleet.durability, "none");
  EXPECT_EQ(fleet.checkpoints, "/mnt/checkpoints");
  EXPECT_THAT(fleet.servers, ElementsAre("127.0.0.1:7400", "ps-1.example.org:7401"));
}

TEST(FleetFileTest, Defaults) {
  ASSERT_OK_AND_ASSIGN(const FleetFile fleet, Parse(R"({"name": "a", "checkpoints": "/c",
                                 "servers": [{"address": "[::1]:1"}]})"));
  EXPECT_EQ(fleet.durability, "checkpoint");
  EXPECT_EQ(fleet.checkpoints, "/c");
  ASSERT_OK_AND_ASSIGN(const FleetFile without, Parse(R"({"name": "a", "durability": "none",
                                 "servers": [{"address": "h:1"}]})"));
  EXPECT_EQ(without.checkpoints, "");
}

TEST(FleetFileTest, OnlyCheckpointDurabilityNeedsAFolder) {
  for (const char* durability : {"none", "wal"}) {
    const std::string json = absl::StrCat(R"({"name": "a", "durability": ")", durability,
                                          R"(", "servers": [{"address": "h:1"}]})");
    ASSERT_OK_AND_ASSIGN(const FleetFile fleet, Parse(json));
    EXPECT_EQ(fleet.durability, durability);
    EXPECT_EQ(fleet.checkpoints, "");
  }
  EXPECT_THAT(Parse(R"({"name": "a", "servers": [{"address": "h:1"}]})"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("needs \"checkpoints\"")));
}

TEST(FleetFileTest, RefusesWhatIsWrong) {
  const struct {
    const char* json;
    const char* what;
  } cases[] = {
      {"", "f.json\": is not valid JSON; expected {\"name\""},
      {R"({"name": "a", )", "is not valid JSON"},
      {"[]", "is not an object"},
      {R"({"servers": [{"address": "h:1"}]})", "has no \"name\""},
      {R"({"name": 7, "servers": [{"address": "h:1"}]})", "\"name\" is not a string"},
      {R"({"name": "a b", "servers": [{"address": "h:1"}]})", "fleet name \"a b\": expected"},
      {R"({"name": "a", "durabilty": "none", "servers": [{"address": "h:1"}]})",
       "unknown key \"durabilty\"; did you mean \"durability\""},
      {R"({"name": "a", "durability": "some", "servers": [{"address": "h:1"}]})",
       "durability \"some\", expected \"wal\", \"checkpoint\" or \"none\""},
      {R"({"name": "a", "checkpoints": [], "servers": [{"address": "h:1"}]})",
       "\"checkpoints\" is not a string"},
      {R"({"name": "a"})", "\"servers\" is not a list of 1 to 1024 servers"},
      {R"({"name": "a", "servers": []})", "\"servers\" is not a list"},
      {R"({"name": "a", "servers": {"address": "h:1"}})", "\"servers\" is not a list"},
      {R"({"name": "a", "servers": ["h:1"]})", "server 0 is not an object"},
      {R"({"name": "a", "servers": [{"address": "h:1"}, {}]})", "server 1 has no \"address\""},
      {R"({"name": "a", "servers": [{"adress": "h:1"}]})", "did you mean \"address\""},
      {R"({"name": "a", "servers": [{"address": "h:1"}, {"address": "h:1"}]})",
       "server 1: address \"h:1\" stands twice"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(Parse(c.json), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(c.what)))
        << c.json;
  }
  for (const char* address : {"", "h", ":1", "h:", "h:0", "h:65536", "h:+1", "h: 1", "h h:1",
                              "::1:7400", "[]:1", "h:1:2", "h\\n:1"}) {
    EXPECT_THAT(
        Parse(absl::StrCat(R"({"name": "a", "servers": [{"address": ")", address, R"("}]})")),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is not host:port")))
        << address;
  }
}

TEST(FleetFileTest, AMissingFileSaysWhatToDo) {
  EXPECT_THAT(
      FleetFile::Load("no-such-folder/fleet.json"),
      StatusIs(absl::StatusCode::kNotFound,
               "fleet file \"no-such-folder/fleet.json\": no such file; pass --fleet or set "
               "SHARDSTEP_FLEET (local: shardctl fleet up --servers 3 --dir D)"));
}

TEST(FleetFileTest, AFolderIsNoFleetFile) {
  EXPECT_THAT(FleetFile::Load(testing::TempDir()).status().message(), HasSubstr("cannot be read"));
}

TEST(FleetFileTest, WriteAndLoad) {
  const std::string path = TestPath("fleet.json");
  ASSERT_OK_AND_ASSIGN(FleetFile fleet, Parse(kTwoServers));
  ASSERT_OK(fleet.Write(path));
  ASSERT_OK_AND_ASSIGN(FleetFile loaded, FleetFile::Load(path));
  EXPECT_EQ(loaded.name, fleet.name);
  EXPECT_EQ(loaded.checkpoints, fleet.checkpoints);
  EXPECT_EQ(loaded.servers, fleet.servers);

  // Readers of the old file keep it: the new one is another file.
  std::ifstream old(path);
  fleet.servers.pop_back();
  ASSERT_OK(fleet.Write(path));
  ASSERT_OK_AND_ASSIGN(loaded, FleetFile::Load(path));
  EXPECT_EQ(loaded.servers.size(), 1u);
  const std::string text((std::istreambuf_iterator<char>(old)), std::istreambuf_iterator<char>());
  EXPECT_THAT(text, HasSubstr("ps-1.example.org"));
  int files = 0;
  for (const auto& file : std::filesystem::directory_iterator(testing::TempDir())) {
    files += file.path().string().find("fleet.json") != std::string::npos ? 1 : 0;
  }
  EXPECT_EQ(files, 1) << "a temporary file is left";
}

TEST(FleetFileTest, AWriteThatFailsSaysSo) {
  ASSERT_OK_AND_ASSIGN(const FleetFile fleet, Parse(kTwoServers));
  EXPECT_THAT(fleet.Write("no-such-folder/fleet.json"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("cannot be written")));
}

TEST(FleetFileTest, HashCountsServersButNotTheirAddresses) {
  ASSERT_OK_AND_ASSIGN(FleetFile fleet, Parse(kTwoServers));
  const std::string hash = fleet.Hash();
  fleet.servers[0] = "10.0.0.1:1";
  EXPECT_EQ(fleet.Hash(), hash);

  FleetFile other = fleet;
  other.servers.pop_back();
  EXPECT_NE(other.Hash(), hash);
  other = fleet;
  other.name = "digit";
  EXPECT_NE(other.Hash(), hash);
  other = fleet;
  other.checkpoints = "";
  EXPECT_NE(other.Hash(), hash);
  EXPECT_EQ(other.Hash(), "fbe8a82f");  // CRC32C of "6:digits4:none0:2"
  // Lengths keep fields apart.
  other.name = "digits4";
  other.durability = "";
  EXPECT_NE(other.Hash(), "fbe8a82f");
}

TEST(FleetFileTest, Summary) {
  ASSERT_OK_AND_ASSIGN(FleetFile fleet, Parse(kTwoServers));
  EXPECT_EQ(fleet.Summary(),
            "name \"digits\", durability \"none\", checkpoints \"/mnt/checkpoints\", 2 servers");
  fleet.servers.pop_back();
  fleet.checkpoints.clear();
  EXPECT_EQ(fleet.Summary(), "name \"digits\", durability \"none\", no checkpoints, 1 server");
}

}  // namespace
}  // namespace shardstep
