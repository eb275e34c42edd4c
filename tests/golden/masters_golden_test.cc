// Fleets whose parameters are declared bfloat16 and float16, against PyTorch's optimizers on
// float32 masters: every bit of what is pulled, of the masters and of the states, on one to three
// servers and across every way that leads from one fleet to another.

#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "ATen/Parallel.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/checkpoint/file_system.h"
#include "shardstep/checkpoint/safetensors_file.h"
#include "shardstep/client/client.h"
#include "shardstep/optim/numeric_fingerprint.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/tests/test_client.h"

namespace shardstep {
namespace {

constexpr int kSteps = 20;
constexpr int kMiddle = 10;
const char* const kNames[] = {"rows", "odd", "scalar", "empty", "full"};

using Tensors = std::map<std::string, HostTensor>;

// What generate_masters.py made, by key.
const Tensors& Golden() {
  static const Tensors* const tensors = [] {
    auto* made = new Tensors();
    const SafetensorsReader file =
        SafetensorsReader::Open(PosixFileSystem(), "tests/golden/data/masters.safetensors").value();
    for (size_t i = 0; i < file.entries().size(); ++i) {
      const SafetensorsEntry& entry = file.entries()[i];
      HostTensor tensor{entry.dtype, entry.sizes, {}};
      tensor.bytes.resize(static_cast<size_t>(entry.end - entry.begin));
      EXPECT_OK(file.Read(i, 0, tensor.bytes.data(), entry.end - entry.begin));
      made->emplace(entry.name, std::move(tensor));
    }
    return made;
  }();
  return *tensors;
}

OptimizerOptions OptionsOf(const std::string& kind) {
  if (kind == "sgd") return SGDOptions(0.05).momentum(0.9).nesterov(true).weight_decay(0.01);
  if (kind == "rmsprop") return RMSpropOptions(0.01).momentum(0.9).centered(true);
  return AdamWOptions(0.01).amsgrad(true);
}

// "rows" is cut into columns, so that shards end in the middle of every row.
std::optional<ShardingSpec> SpecOf(const std::string& name, int servers) {
  if (name == "rows") return Chunk{1, Rows(servers).placements};
  if (name == "odd") return Rows(servers);
  if (name == "scalar") return Whole{servers - 1};
  return std::nullopt;
}

MiniFleetOptions Servers(int servers, const std::string& checkpoints = "") {
  MiniFleetOptions options;
  options.servers = servers;
  options.checkpoints = checkpoints;
  return options;
}

void ExpectSameBits(const HostTensor& actual, const std::string& key) {
  const HostTensor& expected = Golden().at(key);
  EXPECT_EQ(actual.dtype, expected.dtype) << key;
  EXPECT_EQ(actual.sizes, expected.sizes) << key;
  EXPECT_EQ(actual.bytes, expected.bytes) << key;
}

// dtype, optimizer.
class MastersGoldenTest : public testing::TestWithParam<std::tuple<const char*, const char*>> {
 protected:
  std::string dtype() const { return std::get<0>(GetParam()); }
  std::string kind() const { return std::get<1>(GetParam()); }

  // An optimizer on a fleet of its own, which takes the place of the one before.
  void Start(const MiniFleetOptions& options, bool create = true) {
    optimizer_.reset();
    client_.reset();
    // Those that are restarted are processes of their own.
    fleet_ = options.durability == "wal" ? MakeProcessFleet(options) : MakeInProcessFleet(options);
    ASSERT_OK(fleet_->Start());
    ASSERT_NO_FATAL_FAILURE(Connect());
    if (create) Create();
  }
  void Connect() {
    optimizer_.reset();
    ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet_->fleet_file()));
    client_ = std::make_unique<Client>(std::move(client));
  }
  void Create() {
    Tensors initial;
    ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer,
                         client_->CreateOptimizer("m", Named("initial", &initial),
                                                  OptionsOf(kind()), Synchronous(1), 0));
    optimizer_ = std::make_unique<ShardedOptimizer>(std::move(optimizer));
  }

  // The golden tensors below <dtype>/<folder>, of which `memory` gets a copy.
  std::vector<NamedTensor> Named(const std::string& folder, Tensors* memory) {
    std::vector<NamedTensor> named;
    for (const std::string name : kNames) {
      HostTensor& tensor =
          memory->emplace(name, Golden().at(absl::StrCat(dtype(), "/", folder, "/", name)))
              .first->second;
      NamedTensor& added = named.emplace_back();
      added.name = name;
      added.value = {tensor.bytes.data(), tensor.dtype, tensor.sizes};
      added.spec = SpecOf(name, fleet_->options().servers);
    }
    return named;
  }

  void Step(int step) {
    Tensors gradients;
    const auto named = Named(absl::StrCat("gradient/", step), &gradients);
    ASSERT_OK_AND_ASSIGN(GradientPush push, optimizer_->StartPush());
    for (const NamedTensor& gradient : named) ASSERT_OK(push.Add(gradient.name, gradient.value));
    ASSERT_OK(push.Finish());
    ASSERT_OK(optimizer_->Step().status());
  }

  // What is pulled, and all of the state_dict, against PyTorch's after `step`.
  void Compare(int step) {
    const std::string prefix = absl::StrCat(dtype(), "/", kind(), "/", step, "/");
    Tensors pulled;
    ASSERT_OK(optimizer_->Pull(Named("initial", &pulled)).status());
    for (const auto& [name, tensor] : pulled) {
      ExpectSameBits(tensor, absl::StrCat(prefix, name, "/pulled"));
    }
    ASSERT_OK_AND_ASSIGN(const StateDict dict, optimizer_->state_dict());
    size_t compared = dict.parameters.size();
    for (const auto& [name, tensor] : dict.parameters) {
      ExpectSameBits(tensor, absl::StrCat(prefix, name, "/pulled"));
    }
    for (const auto& [name, states] : dict.state) {
      for (const auto& [state, value] : states) {
        ++compared;
        const std::string key = absl::StrCat(prefix, name, "/", state);
        ASSERT_EQ(Golden().count(key), 1u) << key;
        if (const auto* tensor = std::get_if<HostTensor>(&value)) {
          ExpectSameBits(*tensor, key);
        } else {
          EXPECT_EQ(std::get<double>(value), step) << key;
        }
      }
    }
    size_t expected = 0;
    for (const auto& [key, tensor] : Golden()) expected += key.rfind(prefix, 0) == 0 ? 1 : 0;
    EXPECT_EQ(compared, expected);
  }

  void StepsTo(int from, int to) {
    for (int step = from + 1; step <= to; ++step) ASSERT_NO_FATAL_FAILURE(Step(step)) << step;
  }
  // The second half of a run whose first half was brought here.
  void GoesOn() {
    ASSERT_NO_FATAL_FAILURE(Compare(kMiddle));
    ASSERT_NO_FATAL_FAILURE(StepsTo(kMiddle, kSteps));
    Compare(kSteps);
  }

  std::unique_ptr<MiniFleet> fleet_;
  std::unique_ptr<Client> client_;
  std::unique_ptr<ShardedOptimizer> optimizer_;
};

TEST_P(MastersGoldenTest, OnOneToThreeServers) {
  for (int servers = 1; servers <= 3; ++servers) {
    SCOPED_TRACE(servers);
    ASSERT_NO_FATAL_FAILURE(Start(Servers(servers)));
    for (int step = 1; step <= kSteps; ++step) {
      ASSERT_NO_FATAL_FAILURE(Step(step)) << step;
      if (step <= 2 || step == kMiddle || step == kSteps) {
        ASSERT_NO_FATAL_FAILURE(Compare(step)) << step;
      }
    }
  }
}

TEST_P(MastersGoldenTest, AStateDictGoesOnWithAnotherSharding) {
  ASSERT_NO_FATAL_FAILURE(Start(Servers(3)));
  ASSERT_NO_FATAL_FAILURE(StepsTo(0, kMiddle));
  ASSERT_OK_AND_ASSIGN(const StateDict dict, optimizer_->state_dict());
  ASSERT_NO_FATAL_FAILURE(Start(Servers(2)));
  ASSERT_NO_FATAL_FAILURE(StepsTo(0, 3));  // what the load replaces
  ASSERT_OK(optimizer_->LoadStateDict(dict).status());
  GoesOn();
}

TEST_P(MastersGoldenTest, ASafetensorsFileGoesOnWithAnotherSharding) {
  ASSERT_NO_FATAL_FAILURE(Start(Servers(2)));
  ASSERT_NO_FATAL_FAILURE(StepsTo(0, kMiddle));
  const std::string path = fleet_->directory() + "/state.safetensors";
  ASSERT_OK(optimizer_->SaveStateDict(path).status());
  const std::unique_ptr<MiniFleet> kept = std::move(fleet_);
  ASSERT_NO_FATAL_FAILURE(Start(Servers(3)));
  ASSERT_OK(optimizer_->LoadStateDict(SafetensorsSource{path, ""}).status());
  GoesOn();
}

TEST_P(MastersGoldenTest, ACheckpointIsRestoredOnAnotherFleetAndLoadedOnItsOwn) {
  ASSERT_NO_FATAL_FAILURE(Start(Servers(3)));
  ASSERT_NO_FATAL_FAILURE(StepsTo(0, kMiddle));
  ASSERT_OK_AND_ASSIGN(const CheckpointSummary made, client_->Checkpoint("m"));
  ASSERT_NO_FATAL_FAILURE(StepsTo(kMiddle, kMiddle + 2));
  ASSERT_OK(optimizer_->LoadStateDict(CheckpointSource{made.id}).status());
  ASSERT_NO_FATAL_FAILURE(GoesOn());
  const std::unique_ptr<MiniFleet> kept = std::move(fleet_);
  ASSERT_NO_FATAL_FAILURE(Start(Servers(2, kept->checkpoints()), /*create=*/false));
  ASSERT_OK(client_->Restore("m", made.id).status());
  ASSERT_NO_FATAL_FAILURE(Create());
  GoesOn();
}

TEST_P(MastersGoldenTest, ALogIsReplayed) {
  MiniFleetOptions options = Servers(3);
  options.durability = "wal";
  options.log_bytes = 4096;  // a base that steps made, too
  options.numerics = "portable";
  ASSERT_NO_FATAL_FAILURE(Start(options));
  ASSERT_NO_FATAL_FAILURE(StepsTo(0, kMiddle));
  optimizer_.reset();
  ASSERT_OK(fleet_->Restart({0, 1, 2}));
  ASSERT_NO_FATAL_FAILURE(Connect());
  ASSERT_NO_FATAL_FAILURE(Create());
  GoesOn();
}

INSTANTIATE_TEST_SUITE_P(All, MastersGoldenTest,
                         testing::Combine(testing::Values("bfloat16", "float16"),
                                          testing::Values("sgd", "rmsprop", "adamw")),
                         [](const auto& info) {
                           return absl::StrCat(std::get<0>(info.param), "_",
                                               std::get<1>(info.param));
                         });

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  shardstep::UsePortableNumerics();
  at::set_num_threads(1);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
