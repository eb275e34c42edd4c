// README's client example, compiled as it stands there, trains two steps on a fleet of two; and
// what stands there is what is compiled here.

#include <torch/torch.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/client/client.h"
#include "shardstep/client/torch_adapter.h"
#include "shardstep/tests/child_process.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep_example {

constexpr uint64_t kSteps = 2;

struct Batch {
  torch::Tensor x, y;
};

// Another batch at every version, for kSteps of them.
struct Data {
  std::optional<Batch> At(uint64_t version) const {
    if (version >= kSteps) return std::nullopt;
    const float shift = static_cast<float>(version);
    return Batch{torch::arange(8, torch::kFloat).reshape({2, 4}) / 8 + shift, torch::ones({2, 3})};
  }
};

torch::nn::Sequential MakeNetwork() {
  torch::manual_seed(7);
  return torch::nn::Sequential(torch::nn::Linear(4, 5), torch::nn::Tanh(), torch::nn::Linear(5, 3));
}

torch::Tensor loss(const torch::Tensor& prediction, const torch::Tensor& target) {
  return torch::mse_loss(prediction, target);
}

absl::Status Train(torch::nn::Sequential net, int rank) {
  const Data data;
  // clang-format off
  // README begins
auto client = shardstep::Client::Connect("fleet.json").value();         // or "ps-0:7400": any server describes the rest
auto optimizer = client.CreateOptimizer(                                // creates or attaches
    "digits", shardstep::NamedParameters(*net), shardstep::AdamWOptions(1e-3).weight_decay(0.01),   // LibTorch's spelling
    shardstep::Synchronous(/*trainers=*/2), /*trainer_rank=*/rank).value();
shardstep::TorchAdapter model(optimizer, *net);
if (absl::Status pulled = model.Pull(); !pulled.ok()) return pulled;
while (auto batch = data.At(optimizer.version())) {
  loss(net->forward(batch->x), batch->y).backward();
  auto step = model.Step();                                             // push, step, pull
  if (!step.ok()) return step.status();
}
  // README ends
  // clang-format on
  return optimizer.version() == kSteps ? absl::OkStatus()
                                       : absl::InternalError("did not train to the last step");
}

std::vector<std::string> LinesBetween(const std::string& path, const std::string& begin,
                                      const std::string& end) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    if (inside && line == end) return lines;
    if (inside) lines.push_back(line);
    if (line == begin) inside = true;
  }
  ADD_FAILURE() << path << " has no lines between \"" << begin << "\" and \"" << end << "\"";
  return {};
}

TEST(ReadmeExampleTest, IsWhatIsCompiledHere) {
  const std::vector<std::string> compiled =
      LinesBetween(shardstep::RunfilePath("tests/readme_example_test.cc"), "  // README begins",
                   "  // README ends");
  EXPECT_EQ(compiled.size(), 11u);
  EXPECT_EQ(LinesBetween(shardstep::RunfilePath("README.md"), "```cpp", "```"), compiled);
}

TEST(ReadmeExampleTest, TrainsTwoStepsOnAFleetOfTwo) {
  shardstep::MiniFleetOptions options;
  options.servers = 2;
  const std::unique_ptr<shardstep::MiniFleet> fleet = shardstep::MakeInProcessFleet(options);
  ASSERT_OK(fleet->Start());
  std::filesystem::current_path(fleet->directory());  // where fleet.json is
  torch::nn::Sequential nets[2] = {MakeNetwork(), MakeNetwork()};
  const torch::nn::Sequential start = MakeNetwork();
  absl::Status other;
  std::thread trainer([&] { other = Train(nets[1], 1); });
  const absl::Status own = Train(nets[0], 0);
  trainer.join();
  ASSERT_OK(own);
  ASSERT_OK(other);

  // Both batches are equal, and so is their mean: one process with LibTorch's own AdamW.
  torch::nn::Sequential expected = MakeNetwork();
  torch::optim::AdamW adamw(expected->parameters(),
                            torch::optim::AdamWOptions(1e-3).weight_decay(0.01));
  for (uint64_t version = 0; version < kSteps; ++version) {
    const Batch batch = *Data().At(version);
    adamw.zero_grad();
    loss(expected->forward(batch.x), batch.y).backward();
    adamw.step();
  }
  for (size_t i = 0; i < expected->parameters().size(); ++i) {
    const torch::Tensor trained = nets[0]->parameters()[i];
    EXPECT_TRUE(trained.equal(nets[1]->parameters()[i])) << i;
    EXPECT_FALSE(trained.equal(start->parameters()[i])) << i;
    EXPECT_TRUE(trained.allclose(expected->parameters()[i], 1e-5, 1e-6)) << i;
  }
}

}  // namespace shardstep_example
