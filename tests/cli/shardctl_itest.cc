// shardctl on a fleet of real servers: each verb in the order in which an operator meets it.
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "shardstep/client/cli/shardctl.h"
#include "shardstep/client/client.h"
#include "shardstep/client/sharded_optimizer.h"
#include "shardstep/optim/options/optimizer_options.h"
#include "shardstep/sharding/tensor_view.h"
#include "shardstep/tests/eventually.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::StartsWith;

struct Result {
  int code;
  std::string out;
  std::string err;

  nlohmann::json json() const {
    return nlohmann::json::parse(out, nullptr, /*allow_exceptions=*/false);
  }
};

class ShardctlFleetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(dir_);
    unsetenv("SHARDSTEP_FLEET");
    up_ = Shardctl(absl::StrCat(
        "fleet up --servers 2 --detach --json --server-binary server/shardstep-server --dir ",
        dir_));
    ASSERT_EQ(up_.code, kDone) << up_.err;
    setenv("SHARDSTEP_FLEET", (dir_ + "/fleet.json").c_str(), 1);
  }
  void TearDown() override {
    EXPECT_EQ(Shardctl("fleet down").code, kDone);
    unsetenv("SHARDSTEP_FLEET");
  }

  static Result Shardctl(const std::string& line) {
    std::ostringstream out;
    std::ostringstream err;
    const int code = RunShardctl(absl::StrSplit(line, ' ', absl::SkipEmpty()), out, err);
    return {code, out.str(), err.str()};
  }

  // One of the list that `checkpoints` prints.
  static nlohmann::json Find(const nlohmann::json& list, const std::string& id) {
    for (const auto& checkpoint : list["checkpoints"]) {
      if (checkpoint["id"] == id) return checkpoint;
    }
    return nullptr;
  }

  static std::string ReadFile(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  // Damages the largest file of tensors in the folder; returns its name.
  static std::string FlipLastByte(const std::string& folder) {
    std::filesystem::path largest;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().extension() != ".safetensors") continue;
      if (largest.empty() || entry.file_size() > std::filesystem::file_size(largest))
        largest = entry.path();
    }
    std::string bytes = ReadFile(largest);
    bytes.back() ^= 1;
    std::ofstream(largest, std::ios::binary) << bytes;
    return largest.filename();
  }

  // Trainer 0 of two, of the optimizer "net" with one parameter, on the fleet of `dir`.
  absl::StatusOr<ShardedOptimizer> CreateNet() { return CreateNet(dir_); }
  absl::StatusOr<ShardedOptimizer> CreateNet(const std::string& dir) {
    absl::StatusOr<Client> client = Client::Connect(dir + "/fleet.json");
    if (!client.ok()) return client.status();
    NamedTensor parameter;
    parameter.name = "fc.weight";
    parameter.value = MakeTensorView(values_.data(), {2, 3});
    return client->CreateOptimizer("net", {parameter}, SGDOptions(0.5).momentum(0.9),
                                   Synchronous(2), 0);
  }

  const std::string dir_ = ::testing::TempDir() + "/fleet";
  std::vector<float> values_ = {1, 2, 3, 4, 5, 6};
  Result up_;
};

TEST_F(ShardctlFleetTest, UpShowsServersThatServe) {
  const nlohmann::json up = up_.json();
  ASSERT_EQ(up["servers"].size(), 2u) << up_.out;
  const Result status = Shardctl("fleet status --json");
  EXPECT_EQ(status.code, kDone) << status.err;
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(up["servers"][rank]["serving"], true);
    EXPECT_EQ(up["servers"][rank]["address"], status.json()["servers"][rank]["address"]);
    EXPECT_EQ(status.json()["servers"][rank]["server_rank"], rank);
  }
}

TEST_F(ShardctlFleetTest, UpKeepsCheckpointsInItsFolder) {
  const nlohmann::json up = up_.json();
  EXPECT_EQ(up["durability"], "checkpoint");
  EXPECT_THAT(up["checkpoints"].get<std::string>(),
              AllOf(StartsWith("/"), EndsWith("/fleet/checkpoints")));
}

TEST_F(ShardctlFleetTest, UpWithALogFindsAgainWhatAKilledFleetHad) {
  const std::string dir = dir_ + "-wal";
  std::filesystem::remove_all(dir);
  const std::string up = absl::StrCat(
      "fleet up --servers 2 --durability wal --log-size 1MiB --detach --json --server-binary "
      "server/shardstep-server --dir ",
      dir);
  const std::string fleet = " --json --fleet " + dir + "/fleet.json";
  const Result first = Shardctl(up);
  ASSERT_EQ(first.code, kDone) << first.err;
  EXPECT_EQ(first.json()["durability"], "wal");
  ASSERT_OK(CreateNet(dir).status());
  for (const char* server : {"/server-0/LOCK", "/server-1/LOCK"}) {
    ASSERT_EQ(kill(std::stoi(ReadFile(dir + server)), SIGKILL), 0);
  }
  // Waits until they are gone.
  EXPECT_EQ(Shardctl("fleet down" + fleet).code, kDone);
  const Result again = Shardctl(up);
  ASSERT_EQ(again.code, kDone) << again.err;
  nlohmann::json listed;
  EXPECT_TRUE(Eventually([&] {
    listed = Shardctl("optimizers" + fleet).json()["optimizers"][0];
    return listed["name"] == "net" && listed["state"] == "live";
  })) << listed;
  EXPECT_EQ(Shardctl("fleet down" + fleet).code, kDone);
}

TEST_F(ShardctlFleetTest, UpRefusesAFolderWhereAFleetRuns) {
  const Result again = Shardctl(absl::StrCat(
      "fleet up --servers 2 --detach --server-binary server/shardstep-server --dir ", dir_));
  EXPECT_EQ(again.code, kRefused);
  EXPECT_THAT(again.err, HasSubstr("runs already as process"));
  EXPECT_EQ(Shardctl("fleet status").code, kDone);
}

TEST_F(ShardctlFleetTest, DownStopsEveryServer) {
  const Result down = Shardctl("fleet down --json");
  EXPECT_EQ(down.code, kDone) << down.err;
  const nlohmann::json stopped = down.json()["servers"];
  ASSERT_EQ(stopped.size(), 2u);
  for (const auto& server : stopped) EXPECT_EQ(server["state"], "stopped");
  const Result again = Shardctl("fleet down --json");
  EXPECT_EQ(again.code, kDone);
  const nlohmann::json idle = again.json()["servers"];
  ASSERT_EQ(idle.size(), 2u);
  for (const auto& server : idle) EXPECT_EQ(server["state"], "not running");
}

TEST_F(ShardctlFleetTest, ShowsAnOptimizer) {
  EXPECT_EQ(Shardctl("optimizers").out, "no optimizers\n");
  ASSERT_OK_AND_ASSIGN(const ShardedOptimizer optimizer, CreateNet());

  EXPECT_THAT(Shardctl("optimizers").out, HasSubstr("net   SGD   synchronous with 2 trainers"));
  const nlohmann::json listed = Shardctl("optimizers --json").json()["optimizers"][0];
  EXPECT_EQ(listed["elements"], 6);
  EXPECT_EQ(listed["version"], 0);
  EXPECT_EQ(listed["state"], "live");

  const std::string described = Shardctl("describe net").out;
  EXPECT_THAT(
      described,
      HasSubstr("optimizer \"net\": SGD, synchronous with 2 trainers, version 0 (durable 0)"));
  EXPECT_THAT(described, HasSubstr("group 0 (1 parameters): lr=0.5 momentum=0.9 "));
  EXPECT_THAT(described, HasSubstr("fc.weight  float32  [2,3]       1  rank:0/cpu\n"));
  const nlohmann::json json = Shardctl("describe net --json").json();
  EXPECT_EQ(json["param_groups"][0]["options"]["momentum"], 0.9);
  EXPECT_EQ(json["parameters"][0]["shards"][0]["placement"], "rank:0/cpu");
}

TEST_F(ShardctlFleetTest, ShowsWhoIsThere) {
  ASSERT_OK_AND_ASSIGN(const ShardedOptimizer optimizer, CreateNet());
  EXPECT_THAT(Shardctl("sessions net").out,
              MatchesRegex("trainer +session  last seen  version  state\n"
                           "      0 +[0-9]+  [0-9]\\.[0-9] s ago        0\n"
                           "      1 +-          -        0  no session\n"));
  const nlohmann::json sessions = Shardctl("sessions net --json").json()["sessions"];
  EXPECT_LT(sessions[0]["last_seen_seconds"], 60);
  EXPECT_TRUE(sessions[1]["last_seen_seconds"].is_null());
}

TEST_F(ShardctlFleetTest, MakesListsAndVerifiesCheckpoints) {
  EXPECT_EQ(Shardctl("checkpoints net").out, "no checkpoints\n");
  ASSERT_OK_AND_ASSIGN(const ShardedOptimizer optimizer, CreateNet());
  const Result made = Shardctl("checkpoint net --id first");
  ASSERT_EQ(made.code, kDone) << made.err;
  EXPECT_THAT(made.out, StartsWith("checkpoint \"first\" of \"net\": version 0, "));
  EXPECT_EQ(made.err, "");
  const Result again = Shardctl("checkpoint net --id first");
  EXPECT_EQ(again.code, kRefused);
  EXPECT_THAT(again.err, HasSubstr("first"));

  EXPECT_THAT(Shardctl("checkpoints net").out, HasSubstr("on demand    ok\n"));
  const nlohmann::json listed = Find(Shardctl("checkpoints net --json").json(), "first");
  EXPECT_EQ(listed["version"], 0);
  EXPECT_EQ(listed["automatic"], false);

  const Result sound = Shardctl("verify net --id first");
  EXPECT_EQ(sound.code, kDone) << sound.err;
  EXPECT_EQ(sound.out, "checkpoint \"first\" of \"net\": every byte as written\n");
  const std::string file = FlipLastByte(dir_ + "/checkpoints/net/first");
  const Result damaged = Shardctl("verify net --id first");
  EXPECT_EQ(damaged.code, kRefused);
  EXPECT_THAT(damaged.out, AllOf(StartsWith(file + ": "), HasSubstr("CRC32C")));
  EXPECT_THAT(damaged.err, StartsWith("shardctl: checkpoint \"first\" of \"net\": "));
  const Result json = Shardctl("verify net --id first --json");
  EXPECT_EQ(json.code, kRefused);
  EXPECT_FALSE(json.json()["problems"].empty());

  const Result restored = Shardctl("restore net --id first");
  EXPECT_EQ(restored.code, kRefused);
  EXPECT_THAT(restored.err, AllOf(HasSubstr(file), HasSubstr("CRC32C")));
  EXPECT_THAT(Shardctl("optimizers").out, HasSubstr("live"));
}

TEST_F(ShardctlFleetTest, RefusesToLeaveTheCheckpoints) {
  ASSERT_OK_AND_ASSIGN(const ShardedOptimizer optimizer, CreateNet());
  for (const std::string id : {"..", "../x", "/x", ".x"}) {
    for (const std::string verb : {"checkpoint", "verify", "restore"}) {
      EXPECT_EQ(Shardctl(absl::StrCat(verb, " net --id ", id)).code, kRefused) << verb << " " << id;
    }
  }
}

TEST_F(ShardctlFleetTest, RestoresOnAnotherNumberOfServers) {
  {
    ASSERT_OK_AND_ASSIGN(const ShardedOptimizer optimizer, CreateNet());
    ASSERT_EQ(Shardctl("checkpoint net").code, kDone);
  }
  const std::string before = dir_ + "/before.safetensors";
  const Result saved = Shardctl("state-dict net --parameters-only --out " + before);
  ASSERT_EQ(saved.code, kDone) << saved.err;
  EXPECT_THAT(saved.out, StartsWith(absl::StrCat("wrote \"", before, "\": version 0 of \"net\"")));
  ASSERT_EQ(Shardctl("fleet down").code, kDone);

  const Result up = Shardctl(
      absl::StrCat("fleet up --servers 1 --detach --server-binary server/shardstep-server --dir ",
                   dir_, "/smaller --checkpoints ", dir_, "/checkpoints"));
  ASSERT_EQ(up.code, kDone) << up.err;
  setenv("SHARDSTEP_FLEET", (dir_ + "/smaller/fleet.json").c_str(), 1);
  const Result restored = Shardctl("restore net --json");
  ASSERT_EQ(restored.code, kDone) << restored.err;
  EXPECT_EQ(restored.json()["version"], 0);
  EXPECT_NE(restored.json()["lineage"], 0);
  EXPECT_TRUE(restored.json()["placed_anew"].empty());  // the planner placed them

  const std::string after = dir_ + "/after.safetensors";
  ASSERT_EQ(Shardctl("state-dict net --parameters-only --out " + after).code, kDone);
  EXPECT_EQ(ReadFile(after), ReadFile(before));
}

TEST_F(ShardctlFleetTest, SaysWhatItCannotRestore) {
  const Result none = Shardctl("restore net");
  EXPECT_EQ(none.code, kRefused);
  EXPECT_EQ(none.err, "shardctl: optimizer \"net\": no checkpoint\n");
  EXPECT_EQ(Shardctl("restore net --id 1-0").code, kRefused);
  EXPECT_EQ(Shardctl("verify net --id 1-0").code, kRefused);
  EXPECT_EQ(Shardctl(absl::StrCat("state-dict net --out ", dir_, "/none")).code, kRefused);
}

TEST_F(ShardctlFleetTest, DeletesOnlyWhenSure) {
  ASSERT_OK_AND_ASSIGN(const ShardedOptimizer optimizer, CreateNet());
  const std::string what = "optimizer \"net\" (SGD, live, version 0, 1 parameters of 6 elements)";
  const Result unsure = Shardctl("delete net");
  EXPECT_EQ(unsure.code, kRefused);
  EXPECT_EQ(unsure.err, absl::StrCat("shardctl: would delete ", what,
                                     " with its state from all servers; pass --yes to do it\n"));
  EXPECT_THAT(Shardctl("optimizers").out, HasSubstr("net"));

  const Result sure = Shardctl("delete net --yes");
  EXPECT_EQ(sure.code, kDone) << sure.err;
  EXPECT_EQ(sure.out, absl::StrCat("deleted ", what, "\n"));
  EXPECT_EQ(Shardctl("optimizers").out, "no optimizers\n");
}

TEST_F(ShardctlFleetTest, NamesTheNearestOptimizer) {
  ASSERT_OK_AND_ASSIGN(const ShardedOptimizer optimizer, CreateNet());
  for (const std::string verb : {"describe", "sessions", "delete"}) {
    const Result result = Shardctl(verb + " nett");
    EXPECT_EQ(result.code, kRefused) << verb;
    EXPECT_EQ(result.err, "shardctl: optimizer \"nett\": not on this fleet; did you mean \"net\"\n")
        << verb;
  }
}

}  // namespace
}  // namespace shardstep
