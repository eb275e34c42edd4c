// state_dict, load_state_dict and add_param_group over real processes: one version while trainers
// go on as fast as they can, all or nothing, once for all trainers, in any sharding.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <future>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/client/client.h"
#include "shardstep/sharding/test_seed.h"
#include "shardstep/tests/eventually.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/raw_trainer.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/tests/test_client.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

using ::testing::HasSubstr;

constexpr int kServers = 3;
constexpr int kTrainers = 4;
constexpr int kSnapshots = 200;

// With momentum 1 and gradients of -1 every element of the momentum counts the steps.
OptimizerOptions Counting() { return SGDOptions(1e-3).momentum(1); }

Floats MakeParameters(float value = 0) {
  Floats parameters;
  parameters.Add("rows", {kServers, 1 << 14}, value, Rows(kServers));
  parameters.Add("columns", {4, 3000}, value, Chunk{1, Rows(kServers).placements});
  parameters.Add("whole", {5}, value, Whole{1});
  return parameters;
}

absl::Span<const float> Numbers(const HostTensor& tensor) {
  return {reinterpret_cast<const float*>(tensor.bytes.data()), tensor.bytes.size() / sizeof(float)};
}

bool AllEqual(const HostTensor& tensor, float value) {
  const auto numbers = Numbers(tensor);
  return std::all_of(numbers.begin(), numbers.end(), [value](float v) { return v == value; });
}

bool Same(const StateDict& a, const StateDict& b) {
  const auto same = [](const HostTensor& x, const HostTensor& y) {
    return x.dtype == y.dtype && x.sizes == y.sizes && x.bytes == y.bytes;
  };
  if (a.param_groups != b.param_groups || a.parameters.size() != b.parameters.size() ||
      a.state.size() != b.state.size()) {
    return false;
  }
  for (const auto& [name, tensor] : a.parameters) {
    if (b.parameters.count(name) == 0 || !same(tensor, b.parameters.at(name))) return false;
  }
  for (const auto& [name, states] : a.state) {
    if (b.state.count(name) == 0 || b.state.at(name).size() != states.size()) return false;
    for (const auto& [state, value] : states) {
      const StateValue& other = b.state.at(name).at(state);
      if (value.index() != other.index()) return false;
      if (value.index() == 1 && std::get<double>(value) != std::get<double>(other)) return false;
      if (value.index() == 0 && !same(std::get<HostTensor>(value), std::get<HostTensor>(other))) {
        return false;
      }
    }
  }
  return true;
}

class StateDictsTest : public testing::Test {
 protected:
  void Start(const MiniFleetOptions& options = {}) {
    fleet_ = MakeProcessFleet(options);
    ASSERT_OK(fleet_->Start());
    ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet_->fleet_file()));
    client_.emplace(client);
  }
  absl::StatusOr<ShardedOptimizer> Attach(int rank, Mode mode) {
    Floats parameters = MakeParameters();
    return client_->CreateOptimizer("m", parameters.named(), Counting(), mode, rank);
  }
  uint64_t SnapshotBytes() {
    const auto status = client_->GetFleetStatus();
    uint64_t bytes = 0;
    for (const ServerStatus& server : status->servers) bytes += server.snapshot_bytes;
    return bytes;
  }

  std::unique_ptr<MiniFleet> fleet_;
  std::optional<Client> client_;
};

TEST_F(StateDictsTest, WholeSnapshotsAreOfOneVersionAtFullSpeed) {
  Start();
  std::atomic<bool> done{false};
  std::atomic<int> steps{0};
  std::vector<std::thread> trainers;
  for (int rank = 0; rank < kTrainers; ++rank) {
    trainers.emplace_back([&, rank] {
      auto optimizer = Attach(rank, Asynchronous(1'000'000));
      ASSERT_OK(optimizer.status());
      const Floats minus_one = MakeParameters(-1);
      StepOptions no_snapshot;
      no_snapshot.snapshot = SnapshotContents::kNone;
      while (!done) {
        ASSERT_OK(PushAndStep(*optimizer, minus_one, no_snapshot).status());
        ++steps;
      }
    });
  }
  ASSERT_TRUE(Eventually([&] { return steps.load() > 0; }, absl::Minutes(1)));
  ASSERT_OK_AND_ASSIGN(OptimizerReader reader, client_->OpenReader("m"));
  uint64_t last = 0;
  for (int i = 0; i < kSnapshots && !HasFailure(); ++i) {
    const auto dict = reader.state_dict();
    ASSERT_OK(dict.status());
    EXPECT_GE(dict->version, last);
    last = dict->version;
    ASSERT_EQ(dict->parameters.size(), 3u);
    const float value = Numbers(dict->parameters.at("whole"))[0];
    for (const auto& [name, tensor] : dict->parameters)
      ASSERT_TRUE(AllEqual(tensor, value)) << name;
    for (const auto& [name, states] : dict->state) {
      ASSERT_TRUE(AllEqual(std::get<HostTensor>(states.at("momentum_buffer")),
                           -static_cast<float>(dict->version)))
          << name << " of version " << dict->version;
    }
  }
  done = true;
  for (std::thread& trainer : trainers) trainer.join();
  EXPECT_GT(last, 0u);
  EXPECT_TRUE(Eventually([&] { return SnapshotBytes() == 0; }, absl::Seconds(30)));
}

TEST_F(StateDictsTest, TwoReadersOfOneVersionGetTheSameBytesAlsoFiftyStepsLater) {
  Start();
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Attach(0, Synchronous(1)));
  ASSERT_OK(optimizer.set_trainer_state("batch 7"));
  Floats gradients = MakeParameters();
  const auto draw = [&] {
    static std::minstd_rand random(1);
    for (const NamedTensor& tensor : gradients.named()) {
      for (float& value : gradients[tensor.name]) value = static_cast<float>(random() % 64) / 64;
    }
  };
  draw();
  ASSERT_OK(PushAndStep(optimizer, gradients).status());
  ASSERT_OK_AND_ASSIGN(OptimizerReader other, client_->OpenReader("m"));
  ASSERT_OK_AND_ASSIGN(StateDictReader first, optimizer.OpenStateDict());
  ASSERT_OK_AND_ASSIGN(StateDictReader second, other.OpenStateDict());
  ASSERT_EQ(first.version(), second.version());
  for (int i = 0; i < 50; ++i) {
    draw();
    ASSERT_OK(PushAndStep(optimizer, gradients).status());
  }
  const auto read = [](StateDictReader& reader) {
    std::map<std::string, std::string> bytes;
    for (;;) {
      const auto piece = reader.Next();
      EXPECT_OK(piece.status());
      if (!piece.ok() || !piece->has_value()) return bytes;
      const StateDictEntry& entry = reader.entries()[(*piece)->entry];
      std::string& all = bytes[absl::StrCat(entry.parameter, "/", entry.state)];
      all.resize(std::max(all.size(), (*piece)->offset + (*piece)->bytes.size()));
      all.replace((*piece)->offset, (*piece)->bytes.size(), std::string((*piece)->bytes));
    }
  };
  const auto bytes = read(first);
  EXPECT_EQ(bytes, read(second));
  EXPECT_EQ(bytes.size(), 6u);
  EXPECT_EQ(first.trainer_states().at(0), "batch 7");
}

TEST_F(StateDictsTest, OnlyTheSelectedPartsAreRead) {
  Start();
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Attach(0, Synchronous(1)));
  Floats gradients = MakeParameters(-1);
  for (int i = 0; i < 3000; ++i) gradients["columns"][2 * 3000 + i] = -static_cast<float>(i);
  ASSERT_OK(PushAndStep(optimizer, gradients).status());
  StateDictOptions options;
  options.parameters = options.state = false;
  options.parts = {{"columns", "momentum_buffer", Region{{1, 900}, {2, 250}}}};
  ASSERT_OK_AND_ASSIGN(const StateDict dict, optimizer.state_dict(options));
  EXPECT_TRUE(dict.parameters.empty());
  ASSERT_EQ(dict.state.size(), 1u);
  const HostTensor& part = std::get<HostTensor>(dict.state.at("columns").at("momentum_buffer"));
  EXPECT_EQ(part.sizes, (Shape{2, 250}));
  EXPECT_EQ(Numbers(part)[0], -1);
  EXPECT_EQ(Numbers(part)[250], -900);
  EXPECT_EQ(Numbers(part)[499], -1149);
}

TEST_F(StateDictsTest, TrainingGoesOnAtHalfItsRateAtLeastWhileASnapshotIsHeld) {
  Start();
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Attach(0, Synchronous(1)));
  const Floats gradients = MakeParameters(-1);
  const auto seconds_for_steps = [&] {
    const absl::Time begin = absl::Now();
    for (int i = 0; i < 60; ++i) EXPECT_OK(PushAndStep(optimizer, gradients).status());
    return absl::ToDoubleSeconds(absl::Now() - begin);
  };
  seconds_for_steps();
  // Interleaved, so that what else the machine does falls on both.
  std::vector<double> ratios;
  for (int round = 0; round < 5; ++round) {
    const double free = seconds_for_steps();
    ASSERT_OK_AND_ASSIGN(StateDictReader held, optimizer.OpenStateDict());
    ratios.push_back(free / seconds_for_steps());
  }
  std::sort(ratios.begin(), ratios.end());
  EXPECT_GE(ratios[2], 0.5);
}

TEST_F(StateDictsTest, MemoryReturnsWhenTheLeaseOfAReaderThatIsGoneEnds) {
  MiniFleetOptions options;
  options.lease = absl::Seconds(1);
  Start(options);
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Attach(0, Synchronous(1)));
  StepOptions no_snapshot;
  no_snapshot.snapshot = SnapshotContents::kNone;
  ASSERT_OK(PushAndStep(optimizer, MakeParameters(-1), no_snapshot).status());
  ASSERT_EQ(SnapshotBytes(), 0u);
  RawTrainer reader(*fleet_, "m", 0, "never renews");
  v1::OpenSnapshotRequest request;
  request.mutable_header()->set_optimizer("m");
  request.set_kind(v1::EVERYTHING);
  ASSERT_OK_AND_ASSIGN(const v1::OpenSnapshotReply opened,
                       Call(reader.coordinator(), &v1::Coordinator::Stub::OpenSnapshot, request));
  EXPECT_GT(SnapshotBytes(), 0u);
  EXPECT_TRUE(Eventually([&] { return SnapshotBytes() == 0; }, absl::Seconds(30)));
  v1::RenewSnapshotRequest renew;
  renew.mutable_header()->set_optimizer("m");
  renew.set_snapshot(opened.snapshot().snapshot());
  EXPECT_EQ(
      ReasonOf(Call(reader.coordinator(), &v1::Coordinator::Stub::RenewSnapshot, renew).status()),
      v1::SNAPSHOT_GONE);
  // One that lives renews.
  ASSERT_OK_AND_ASSIGN(StateDictReader held, optimizer.OpenStateDict());
  ASSERT_OK(PushAndStep(optimizer, MakeParameters(-1), no_snapshot).status());
  const absl::Time later = absl::Now() + absl::Seconds(3);
  ASSERT_TRUE(Eventually([&] { return absl::Now() > later; }, absl::Seconds(30)));
  EXPECT_OK(held.Next().status());
}

TEST_F(StateDictsTest, FourTrainersThatLoadAtOnceLoadOnce) {
  Start();
  std::vector<ShardedOptimizer> optimizers;
  for (int rank = 0; rank < kTrainers; ++rank) {
    auto optimizer = Attach(rank, Asynchronous(1000));
    ASSERT_OK(optimizer.status());
    optimizers.push_back(*std::move(optimizer));
  }
  ASSERT_OK(PushAndStep(optimizers[0], MakeParameters(-1)).status());
  ASSERT_OK_AND_ASSIGN(const StateDict dict, optimizers[0].state_dict());
  ASSERT_OK(PushAndStep(optimizers[0], MakeParameters(-1)).status());
  std::vector<std::future<absl::StatusOr<LoadResult>>> loads;
  for (ShardedOptimizer& optimizer : optimizers) {
    loads.push_back(std::async(std::launch::async,
                               [&optimizer, &dict] { return optimizer.LoadStateDict(dict); }));
  }
  std::set<uint64_t> lineages;
  for (auto& load : loads) {
    const auto loaded = load.get();
    ASSERT_OK(loaded.status());
    EXPECT_EQ(loaded->version, dict.version);
    lineages.insert(loaded->lineage);
  }
  EXPECT_EQ(lineages.size(), 1u);
  EXPECT_NE(*lineages.begin(), dict.lineage);
  for (ShardedOptimizer& optimizer : optimizers) {
    ASSERT_OK(PushAndStep(optimizer, MakeParameters(-1)).status());
  }
  ASSERT_OK_AND_ASSIGN(const StateDict after, optimizers[3].state());
  EXPECT_EQ(after.version, dict.version + kTrainers);
}

TEST_F(StateDictsTest, ABadLoadChangesNothingAndAnotherTrainerIsToldOnceThatAGoodOneDid) {
  Start();
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Attach(0, Asynchronous(1000)));
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer other, Attach(1, Asynchronous(1000)));
  ASSERT_OK(PushAndStep(optimizer, MakeParameters(-1)).status());
  ASSERT_OK_AND_ASSIGN(const StateDict before, optimizer.state_dict());
  StateDict bad = before;
  bad.parameters.rbegin()->second.sizes = {4};
  bad.parameters.rbegin()->second.bytes.resize(16);
  EXPECT_THAT(optimizer.LoadStateDict(bad).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("\"whole\": expected shape [5], got [4]")));
  bad = before;
  bad.parameters.erase("rows");
  bad.state["nowhere"]["momentum_buffer"] = 1.0;
  const absl::Status refused = optimizer.LoadStateDict(bad).status();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kInvalidArgument,
                                HasSubstr("All state keys must be params. The following keys are "
                                          "not: {\"nowhere\"}")));
  EXPECT_THAT(refused.message(), HasSubstr("Missing key(s) in state_dict: \"model.rows\""));
  ASSERT_OK_AND_ASSIGN(const StateDict after, optimizer.state_dict());
  EXPECT_TRUE(Same(before, after));
  EXPECT_EQ(before.lineage, after.lineage);

  LoadOptions lenient;
  lenient.strict = false;
  ASSERT_OK_AND_ASSIGN(const LoadResult loaded, optimizer.LoadStateDict(bad, lenient));
  EXPECT_THAT(loaded.missing_keys, testing::ElementsAre("model.rows"));
  const Floats gradients = MakeParameters(-1);
  ASSERT_OK(Push(other, gradients));
  const absl::Status told = other.Step().status();
  EXPECT_EQ(ReasonOf(told), v1::ROLLED_BACK) << told;
  EXPECT_EQ(other.version(), loaded.version);
  ASSERT_OK(PushAndStep(other, MakeParameters(-1)).status());
}

TEST_F(StateDictsTest, TwoTrainersAddAGroupAndItIsThereOnce) {
  Start();
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer, Attach(0, Synchronous(2)));
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer other, Attach(1, Synchronous(2)));
  Floats later;
  later.Add("later", {2, 8}, 3);
  ParameterGroup group;
  group.parameters = later.named();
  group.options.Set("lr", 0.5);
  // A push that is made before it stays.
  const Floats gradients = MakeParameters(-1);
  ASSERT_OK(Push(optimizer, gradients));
  ASSERT_OK(Push(other, gradients));
  auto adding = std::async(std::launch::async, [&] { return other.AddParamGroup(group); });
  ASSERT_OK(optimizer.AddParamGroup(group));
  ASSERT_OK(adding.get());
  EXPECT_EQ(optimizer.named_params().size(), 4u);
  EXPECT_EQ(other.param_groups().size(), 2u);
  auto stepping = StepAsync(other, WithTimeout(absl::Seconds(30)));
  ASSERT_OK_AND_ASSIGN(const StepResult step, optimizer.Step(WithTimeout(absl::Seconds(30))));
  ASSERT_OK(stepping.get().status());
  EXPECT_EQ(step.version, 2u);  // the group is version 1
  const Floats gradient = later.Like(-1);
  ASSERT_OK(Push(optimizer, gradient));
  ASSERT_OK(Push(other, gradient));
  stepping = StepAsync(other, WithTimeout(absl::Seconds(30)));
  ASSERT_OK(optimizer.Step(WithTimeout(absl::Seconds(30))).status());
  ASSERT_OK(stepping.get().status());
  Floats pulled = later.Like();
  ASSERT_OK(optimizer.Pull(pulled.named()).status());
  EXPECT_THAT(pulled["later"], testing::Each(3.5f));
  ASSERT_OK_AND_ASSIGN(const StateDict dict, other.state_dict());
  EXPECT_TRUE(AllEqual(std::get<HostTensor>(dict.state.at("rows").at("momentum_buffer")), -1));
}

// Any sharding into any other, and any number of servers into any other.
TEST(ReshardingTest, AStateDictLoadsIntoRandomShardings) {
  const uint64_t seed = TestSeed();
  std::mt19937_64 random(seed);
  const auto pick = [&](int below) { return static_cast<int>(random() % below); };
  for (int round = 0; round < 6; ++round) {
    std::optional<StateDict> dict;
    std::vector<Shape> shapes;
    for (int i = 0; i < 5; ++i) {
      Shape& sizes = shapes.emplace_back();
      for (int dim = pick(4); dim > 0; --dim) sizes.push_back(1 + pick(7));
    }
    for (const bool source : {true, false}) {
      MiniFleetOptions options;
      options.servers = 1 + pick(4);
      const auto fleet = MakeInProcessFleet(options);
      ASSERT_OK(fleet->Start());
      ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet->fleet_file()));
      Floats parameters;
      for (size_t i = 0; i < shapes.size(); ++i) {
        std::optional<ShardingSpec> spec;
        const int kind = pick(3);
        if (kind == 0) spec = Whole{pick(options.servers), "cpu"};
        if (kind == 1 && !shapes[i].empty()) {
          spec = Chunk{pick(static_cast<int>(shapes[i].size())), Rows(options.servers).placements};
        }
        parameters.Add(absl::StrCat("p", i), shapes[i], 0, spec);
      }
      Floats gradients = parameters.Like();
      for (const NamedTensor& tensor : gradients.named()) {
        for (float& value : gradients[tensor.name]) value = static_cast<float>(pick(1000));
      }
      ASSERT_OK_AND_ASSIGN(
          ShardedOptimizer optimizer,
          client.CreateOptimizer("m", parameters.named(), AdamOptions(0.1), Synchronous(1), 0));
      ASSERT_OK(PushAndStep(optimizer, gradients).status());
      if (source) {
        ASSERT_OK_AND_ASSIGN(dict, optimizer.state_dict());
        continue;
      }
      ASSERT_OK(optimizer.LoadStateDict(*dict).status()) << "seed " << seed;
      ASSERT_OK_AND_ASSIGN(const StateDict loaded, optimizer.state_dict());
      EXPECT_TRUE(Same(*dict, loaded)) << "seed " << seed << ", round " << round;
    }
  }
}

}  // namespace
}  // namespace shardstep
