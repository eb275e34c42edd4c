// One trainer of several that train one network on a fleet: each computes the gradients of its part
// of every batch. Its state, the next batch, is kept with the fleet's: a trainer that is started
// again goes on where the optimizer is. Exits with 3 where the fleet is away.
#include <torch/torch.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "shardstep/client/client.h"
#include "shardstep/client/torch_adapter.h"
#include "shardstep/examples/digits/experiment.h"
#include "shardstep/examples/digits/training_progress.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/wire/allocator.h"
#include "shardstep/wire/single_callback_thread.h"

namespace shardstep {
namespace {

constexpr int kExitAway = 3;

struct Flags {
  std::string fleet = "fleet.json";
  std::string data = kDigitsPath;
  uint64_t steps = kSteps;
  int trainers = kTrainers;
  int trainer_rank = 0;
  double patience = 60;
};

// The batch to begin with: the trainer's state, which was committed with its last step.
absl::StatusOr<uint64_t> FirstBatch(const ShardedOptimizer& optimizer) {
  uint64_t batch = 0;
  if (optimizer.trainer_state().empty() || absl::SimpleAtoi(optimizer.trainer_state(), &batch)) {
    return batch;
  }
  return absl::InvalidArgumentError("the trainer's state is not the number of a batch");
}

// Says what is safe, and how to go on from there.
absl::Status FleetAway(const absl::Status& status, const ShardedOptimizer& optimizer) {
  if (!absl::IsUnavailable(status)) return status;
  return absl::UnavailableError(absl::StrCat("the fleet is away; last durable version ",
                                             optimizer.durable_version(), "; shardctl restore ",
                                             optimizer.name(), ", then start the trainers again (",
                                             status.message(), ")"));
}

absl::Status Train(const Flags& flags) {
  SHARDSTEP_ASSIGN_OR_RETURN(
      const TrainingData data,
      TrainingData::Load(flags.data, flags.steps, flags.trainers, flags.trainer_rank));
  Network net = MakeNetwork();
  ClientOptions client_options;
  client_options.call_timeout = absl::Seconds(flags.patience);
  SHARDSTEP_ASSIGN_OR_RETURN(Client client, Client::Connect(flags.fleet, client_options));
  SHARDSTEP_ASSIGN_OR_RETURN(
      ShardedOptimizer optimizer,
      client.CreateOptimizer("digits", NamedParameters(*net), DigitsOptimizer(),
                             Synchronous(flags.trainers), flags.trainer_rank));
  TorchAdapter model(optimizer, *net);
  SHARDSTEP_RETURN_IF_ERROR(model.Pull());

  SHARDSTEP_ASSIGN_OR_RETURN(uint64_t position, FirstBatch(optimizer));
  if (position > 0) {
    std::fprintf(stderr, "trainer %d: goes on at version %llu with batch %llu\n",
                 flags.trainer_rank, static_cast<unsigned long long>(optimizer.version()),
                 static_cast<unsigned long long>(position));
  }
  StepOptions step_options;
  step_options.timeout = absl::Seconds(flags.patience);
  TrainingProgress progress(position, flags.steps, /*visible=*/flags.trainer_rank == 0);
  double accuracy = data.Accuracy(net);
  while (auto batch = data.At(position)) {
    const torch::Tensor loss =
        torch::nn::functional::cross_entropy(net->forward(batch->x), batch->y);
    loss.backward();
    ++position;
    SHARDSTEP_RETURN_IF_ERROR(optimizer.set_trainer_state(absl::StrCat(position)));
    const absl::Status stepped = model.Step(step_options).status();
    if (!stepped.ok()) return FleetAway(stepped, optimizer);
    if (data.EndsEpoch(position)) accuracy = data.Accuracy(net);
    progress.Show(position, loss.item<double>(), accuracy);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  shardstep::ConfigureAllocator();
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
  app.add_option("--steps", flags.steps, "Train with this many batches in all")
      ->capture_default_str();
  app.add_option("--data", flags.data, "The digits")->capture_default_str();
  app.add_option("--patience", flags.patience,
                 "How many seconds a step waits for servers and trainers that are away")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const shardstep::SingleCallbackThread single;
  try {
    const absl::Status status = shardstep::Train(flags);
    if (status.ok()) return 0;
    std::fprintf(stderr, "trainer %d: %s\n", flags.trainer_rank,
                 std::string(status.message()).c_str());
    return absl::IsUnavailable(status) ? shardstep::kExitAway : 1;
  } catch (const std::exception& error) {  // LibTorch's
    std::fprintf(stderr, "trainer %d: %s\n", flags.trainer_rank, error.what());
    return 1;
  }
}
