// One trainer of several that train one network on a fleet: each computes the gradients of its part
// of every batch.
#include <torch/torch.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "shardstep/client/client.h"
#include "shardstep/client/torch_adapter.h"
#include "shardstep/examples/digits/experiment.h"
#include "shardstep/examples/digits/progress.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

struct Flags {
  std::string fleet = "fleet.json";
  std::string data = kDigitsPath;
  std::string out;
  uint64_t steps = kSteps;
  int trainers = kTrainers;
  int trainer_rank = 0;
};

absl::Status Train(const Flags& flags) {
  SHARDSTEP_ASSIGN_OR_RETURN(
      const TrainingData data,
      TrainingData::Load(flags.data, flags.steps, flags.trainers, flags.trainer_rank));
  Network net = MakeNetwork();
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, Client::Connect(flags.fleet));
  SHARDSTEP_ASSIGN_OR_RETURN(
      ShardedOptimizer optimizer,
      client.CreateOptimizer("digits", NamedParameters(*net), DigitsOptimizer(),
                             Synchronous(flags.trainers), flags.trainer_rank));
  TorchAdapter model(optimizer, *net);
  SHARDSTEP_RETURN_IF_ERROR(model.Pull());

  Progress progress(optimizer.version(), flags.steps, /*visible=*/flags.trainer_rank == 0);
  double accuracy = data.Accuracy(net);
  while (auto batch = data.At(optimizer.version())) {
    const torch::Tensor loss =
        torch::nn::functional::cross_entropy(net->forward(batch->x), batch->y);
    loss.backward();
    SHARDSTEP_RETURN_IF_ERROR(model.Step().status());
    if (data.EndsEpoch(optimizer.version())) accuracy = data.Accuracy(net);
    progress.Show(optimizer.version(), loss.item<double>(), accuracy);
  }
  return flags.out.empty() ? absl::OkStatus()
                           : ParametersOf(net, optimizer.version()).Write(flags.out);
}

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  shardstep::Flags flags;
  CLI::App app("Trains a network on handwritten digits, as one of several trainers of a fleet.");
  app.add_option("--fleet", flags.fleet, "Fleet file, or host:port of any server")
      ->envname("SHARDSTEP_FLEET")
      ->capture_default_str();
  app.add_option("--trainers", flags.trainers, "How many trainers step together")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--trainer-rank", flags.trainer_rank, "Which of them this one is, from 0")
      ->check(CLI::Range(0, 63))
      ->capture_default_str();
  app.add_option("--steps", flags.steps, "Train up to this version")->capture_default_str();
  app.add_option("--data", flags.data, "The digits")->capture_default_str();
  app.add_option("--out", flags.out, "Write the final parameters to this file (safetensors)");
  CLI11_PARSE(app, argc, argv);
  try {
    const absl::Status status = shardstep::Train(flags);
    if (status.ok()) return 0;
    std::fprintf(stderr, "trainer %d: %s\n", flags.trainer_rank,
                 std::string(status.message()).c_str());
  } catch (const std::exception& error) {  // LibTorch's
    std::fprintf(stderr, "trainer %d: %s\n", flags.trainer_rank, error.what());
  }
  return 1;
}
