// Checkpoints over real processes and real kills: written while training goes on, restored on
// another number of servers, going on to the same bits.

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/client/client.h"
#include "shardstep/tests/eventually.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/tests/test_client.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

namespace fs = std::filesystem;

using ::testing::HasSubstr;

Floats MakeParameters(int servers) {
  Floats parameters;
  parameters.Add("rows", {7, 33}, 1, Rows(servers));
  parameters.Add("columns", {5, 19}, 2, Chunk{1, Rows(servers).placements});
  parameters.Add("whole", {5}, 3, Whole{servers - 1, "cpu"});
  parameters.Add("planned", {3, 4, 2}, 4);
  parameters.Add("never", {6}, 5);
  parameters.Add("scalar", {}, 6);
  return parameters;
}

// A function of the version alone, as a trainer's data is.
Floats GradientsAt(uint64_t version) {
  Floats gradients;
  const Floats parameters = MakeParameters(1);
  for (const NamedTensor& tensor : parameters.named()) {
    if (tensor.name == "never") continue;
    gradients.Add(tensor.name, tensor.value.sizes);
    uint64_t i = version * 977;
    for (float& value : gradients[tensor.name]) {
      value = static_cast<float>((i++ * 2654435761u) % 2048) / 1024 - 1;
    }
  }
  return gradients;
}

class Trainer {
 public:
  Trainer(const MiniFleet& fleet, const OptimizerOptions& kind) {
    client_.emplace(Client::Connect(fleet.fleet_file()).value());
    Floats parameters = MakeParameters(fleet.options().servers);
    // A restored optimizer is compared by its names, shapes and options; specs do not count.
    auto optimizer = client_->CreateOptimizer("m", parameters.named(), kind, Synchronous(1), 0);
    status_ = optimizer.status();
    if (optimizer.ok()) optimizer_.emplace(*std::move(optimizer));
  }
  const absl::Status& status() const { return status_; }
  Client& client() { return *client_; }
  ShardedOptimizer& operator*() { return *optimizer_; }
  ShardedOptimizer* operator->() { return &*optimizer_; }

  absl::Status TrainTo(uint64_t version) {
    while (optimizer_->version() < version) {
      const Floats gradients = GradientsAt(optimizer_->version());
      absl::Status status =
          optimizer_->set_trainer_state(absl::StrCat("at ", optimizer_->version() + 1));
      status.Update(PushAndStep(*optimizer_, gradients).status());
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  std::optional<Client> client_;
  std::optional<ShardedOptimizer> optimizer_;
  absl::Status status_;
};

// Everything that one run ends with, as text that compares bit for bit.
std::map<std::string, std::string> Bits(const StateDict& dict) {
  std::map<std::string, std::string> bits;
  const auto bytes = [](const HostTensor& tensor) {
    return std::string(tensor.bytes.begin(), tensor.bytes.end());
  };
  for (const auto& [name, tensor] : dict.parameters) bits[name] = bytes(tensor);
  for (const auto& [name, states] : dict.state) {
    for (const auto& [state, value] : states) {
      const auto* tensor = std::get_if<HostTensor>(&value);
      bits[absl::StrCat(name, "/", state)] =
          tensor != nullptr ? bytes(*tensor) : absl::StrCat(std::get<double>(value));
    }
  }
  return bits;
}

CheckpointOptions Named(const std::string& id) {
  CheckpointOptions options;
  options.id = id;
  return options;
}

MiniFleetOptions Servers(int servers, const std::string& checkpoints = "") {
  MiniFleetOptions options;
  options.servers = servers;
  options.durability = "checkpoint";
  options.checkpoints = checkpoints;
  return options;
}

class ResumeTest : public testing::TestWithParam<OptimizerOptions> {};

TEST_P(ResumeTest, KilledAndRestoredOnOtherServersItEndsWithTheSameBits) {
  const OptimizerOptions kind = GetParam();
  std::map<std::string, std::string> expected;
  {
    const auto fleet = MakeProcessFleet(Servers(3));
    ASSERT_OK(fleet->Start());
    Trainer trainer(*fleet, kind);
    ASSERT_OK(trainer.status());
    ASSERT_OK(trainer.TrainTo(20));
    ASSERT_OK_AND_ASSIGN(const StateDict dict, trainer->state_dict());
    expected = Bits(dict);
  }
  const auto fleet = MakeProcessFleet(Servers(3));
  ASSERT_OK(fleet->Start());
  Trainer trainer(*fleet, kind);
  ASSERT_OK(trainer.status());
  ASSERT_OK(trainer.TrainTo(12));
  ASSERT_OK_AND_ASSIGN(const CheckpointSummary made, trainer.client().Checkpoint("m"));
  EXPECT_EQ(made.id, "1-12");
  ASSERT_OK(trainer.TrainTo(15));
  EXPECT_EQ(trainer->durable_version(), 12u);
  for (int server = 0; server < 3; ++server) fleet->Kill(server);

  const auto smaller = MakeProcessFleet(Servers(2, fleet->checkpoints()));
  ASSERT_OK(smaller->Start());
  ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(smaller->fleet_file()));
  ASSERT_OK_AND_ASSIGN(const RestoreResult restored, client.Restore("m", "1-12"));
  EXPECT_EQ(restored.version, 12u);
  EXPECT_THAT(restored.placed_anew, testing::ElementsAre("whole"));
  Trainer again(*smaller, kind);
  ASSERT_OK(again.status());
  EXPECT_EQ(again->version(), 12u);
  EXPECT_EQ(again->trainer_state(), "at 12");
  ASSERT_OK(again.TrainTo(20));
  ASSERT_OK_AND_ASSIGN(const StateDict dict, again->state_dict());
  EXPECT_EQ(Bits(dict), expected);
  EXPECT_EQ(dict.state.count("never"), 0u);
}

INSTANTIATE_TEST_SUITE_P(All, ResumeTest,
                         testing::Values(SGDOptions(0.01).momentum(0.9).nesterov(true),
                                         AdamOptions(0.01).amsgrad(true),
                                         AdamWOptions(0.01).weight_decay(0.1)),
                         [](const auto& info) { return info.param.kind; });

class CheckpointsTest : public testing::Test {
 protected:
  void Start(const MiniFleetOptions& options) {
    fleet_ = MakeProcessFleet(options);
    ASSERT_OK(fleet_->Start());
    trainer_.emplace(*fleet_, AdamOptions(0.01));
    ASSERT_OK(trainer_->status());
  }
  Trainer& trainer() { return *trainer_; }

  std::unique_ptr<MiniFleet> fleet_;
  std::optional<Trainer> trainer_;
};

TEST_F(CheckpointsTest, AutomaticOnesFollowAndAFleetThatLostItsMemoryReturnsToTheLast) {
  MiniFleetOptions options = Servers(3);
  options.checkpoint_interval = absl::Milliseconds(200);
  Start(options);
  ASSERT_OK(trainer().TrainTo(3));
  uint64_t version = 3;
  ASSERT_TRUE(Eventually(
      [&] {
        EXPECT_OK(trainer().TrainTo(++version));
        return trainer()->durable_version() >= 3;
      },
      absl::Minutes(1)));
  const uint64_t durable = trainer()->durable_version();
  EXPECT_LT(durable, trainer()->version());
  for (int server = 0; server < 3; ++server) ASSERT_OK(fleet_->Restart(server));
  ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet_->fleet_file()));
  // They return to the last one by themselves, and whoever asks meanwhile waits.
  uint64_t returned = 0;
  {
    Trainer again(*fleet_, AdamOptions(0.01));
    ASSERT_OK(again.status());
    returned = again->version();
    EXPECT_GE(returned, durable);
    ASSERT_OK(again.TrainTo(returned + 3));
  }
  // Whoever wants another one says so.
  ASSERT_OK_AND_ASSIGN(const auto list, client.ListCheckpoints("m"));
  ASSERT_FALSE(list.empty());
  EXPECT_LE(list.size(), 4u);
  ASSERT_OK_AND_ASSIGN(const RestoreResult restored, client.Restore("m", list.front().id));
  EXPECT_EQ(restored.version, list.front().version);
  Trainer again(*fleet_, AdamOptions(0.01));
  ASSERT_OK(again.status());
  EXPECT_EQ(again->version(), restored.version);
  ASSERT_OK(again.TrainTo(restored.version + 3));
}

TEST_F(CheckpointsTest, EveryFileIsVerifiedAndDamageIsNamedAndRefused) {
  Start(Servers(3));
  ASSERT_OK(trainer().TrainTo(4));
  ASSERT_OK(trainer().client().Checkpoint("m", Named("good")).status());
  ASSERT_OK_AND_ASSIGN(const StateDict before, trainer()->state_dict());
  EXPECT_THAT(trainer().client().VerifyCheckpoint("m", "good").value(), testing::IsEmpty());
  const fs::path file =
      fs::path(fleet_->checkpoints()) / "m" / "good" / "shard-00001-of-00003.safetensors";
  const auto size = fs::file_size(file);
  {
    std::fstream damaged(file, std::ios::in | std::ios::out | std::ios::binary);
    damaged.seekg(static_cast<std::streamoff>(size) - 3);
    const char was = static_cast<char>(damaged.get());
    damaged.seekp(static_cast<std::streamoff>(size) - 3);
    damaged.put(static_cast<char>(was ^ 1));
  }
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> problems,
                       trainer().client().VerifyCheckpoint("m", "good"));
  ASSERT_FALSE(problems.empty());
  EXPECT_THAT(problems[0], HasSubstr("shard-00001-of-00003.safetensors"));
  const absl::Status refused = trainer().client().Restore("m", "good").status();
  EXPECT_THAT(refused,
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("shard-00001-of-00003.safetensors")));
  const absl::Status load = trainer()->LoadStateDict(CheckpointSource{"good"}).status();
  EXPECT_EQ(load.code(), absl::StatusCode::kDataLoss) << load;
  ASSERT_OK_AND_ASSIGN(const StateDict after, trainer()->state_dict());
  EXPECT_EQ(Bits(before), Bits(after));
  fs::resize_file(file, size - 1);
  EXPECT_THAT(trainer().client().VerifyCheckpoint("m", "good").value(),
              testing::Contains(HasSubstr("bytes, expected ")));
}

TEST_F(CheckpointsTest, ALoadFromACheckpointRewindsWithoutAnotherRestart) {
  Start(Servers(3));
  ASSERT_OK(trainer().TrainTo(4));
  ASSERT_OK_AND_ASSIGN(const StateDict at_4, trainer()->state_dict());
  ASSERT_OK(trainer().client().Checkpoint("m", Named("four")).status());
  ASSERT_OK(trainer().TrainTo(9));
  ASSERT_OK_AND_ASSIGN(const LoadResult loaded, trainer()->LoadStateDict(CheckpointSource{"four"}));
  EXPECT_EQ(loaded.version, 4u);
  EXPECT_EQ(trainer()->trainer_state(), "at 4");
  ASSERT_OK_AND_ASSIGN(const StateDict after, trainer()->state_dict());
  EXPECT_EQ(Bits(after), Bits(at_4));
  EXPECT_NE(after.lineage, at_4.lineage);
  ASSERT_OK(trainer().TrainTo(6));
}

TEST_F(CheckpointsTest, OneSafetensorsFileHoldsTheStateDictAndLoadsAgain) {
  Start(Servers(3));
  ASSERT_OK(trainer().TrainTo(4));
  const std::string path = fleet_->directory() + "/state.safetensors";
  ASSERT_OK_AND_ASSIGN(const SaveResult saved, trainer()->SaveStateDict(path));
  EXPECT_EQ(saved.version, 4u);
  ASSERT_OK_AND_ASSIGN(const StateDict at_4, trainer()->state_dict());
  ASSERT_OK(trainer().TrainTo(7));
  ASSERT_OK(trainer()->LoadStateDict(SafetensorsSource{path, ""}).status());
  ASSERT_OK_AND_ASSIGN(const StateDict after, trainer()->state_dict());
  EXPECT_EQ(Bits(after), Bits(at_4));
  ASSERT_OK(trainer().TrainTo(trainer()->version() + 2));
}

}  // namespace
}  // namespace shardstep
