// The same training in one process without a fleet: computes the gradients of every trainer's part
// itself, adds them in the trainers' order and steps with the library that the servers use. Its
// parameters and their optimizer state are the fleet's, bit for bit.
#include <torch/torch.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "shardstep/checkpoint/names.h"
#include "shardstep/examples/digits/experiment.h"
#include "shardstep/examples/digits/state_file.h"
#include "shardstep/examples/digits/training_progress.h"
#include "shardstep/optim/local_optimizer.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/optim/reduction.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

struct Flags {
  std::string data = kDigitsPath;
  std::string compare;
  uint64_t steps = kSteps;
  int trainers = kTrainers;
};

absl::StatusOr<LocalOptimizer> MakeOptimizer(Network& net) {
  const OptimizerOptions chosen = DigitsOptimizer();
  ParamGroup group;
  SHARDSTEP_ASSIGN_OR_RETURN(group.options, CompleteOptions(chosen.kind, chosen.given));
  std::vector<ShardValue> shards;
  for (const auto& item : net->named_parameters()) {
    group.params.push_back(item.key());
    shards.push_back({shards.size(), item.value().detach().clone()});
  }
  const std::vector<std::string> names = group.params;
  return LocalOptimizer::Create(chosen.kind, {std::move(group)}, names, std::move(shards));
}

// Adds `batch`'s gradients to the contributions, by parameter; returns the loss.
double Backward(Network& net, const Batch& batch,
                std::vector<std::vector<Contribution>>* contributions) {
  const torch::Tensor loss = torch::nn::functional::cross_entropy(net->forward(batch.x), batch.y);
  loss.backward();
  size_t parameter = 0;
  for (torch::Tensor& value : net->parameters()) {
    (*contributions)[parameter++].push_back({value.grad().contiguous(), /*weight=*/1});
    value.mutable_grad() = torch::Tensor();
  }
  return loss.item<double>();
}

absl::StatusOr<ShardGradient> Reduce(std::vector<Contribution> contributions, int trainers) {
  const int64_t elements = contributions.front().gradient.numel();
  ReductionOptions options;
  options.divisor = trainers;
  SHARDSTEP_ASSIGN_OR_RETURN(
      Reduction reduction,
      Reduction::Create(std::move(contributions), torch::kFloat, elements, options));
  for (size_t block = 0; block < reduction.num_blocks(); ++block) reduction.RunBlock(block);
  SHARDSTEP_ASSIGN_OR_RETURN(ReducedGradient reduced, reduction.Finish());
  return reduced.gradient;
}

absl::Status Step(std::vector<std::vector<Contribution>> contributions, int trainers,
                  LocalOptimizer* optimizer, Network& net) {
  std::vector<ShardGradient> gradients;
  for (std::vector<Contribution>& parameter : contributions) {
    SHARDSTEP_ASSIGN_OR_RETURN(ShardGradient gradient, Reduce(std::move(parameter), trainers));
    gradients.push_back(std::move(gradient));
  }
  SHARDSTEP_RETURN_IF_ERROR(
      optimizer->BeginStep(std::move(gradients), /*coefficient=*/std::nullopt));
  for (size_t block = 0; block < optimizer->num_blocks(); ++block) optimizer->RunBlock(block);
  SHARDSTEP_RETURN_IF_ERROR(optimizer->FinishStep());
  const torch::NoGradGuard no_grad;
  size_t parameter = 0;
  for (torch::Tensor& value : net->parameters())
    value.copy_(optimizer->state().shards[parameter++].value);
  return absl::OkStatus();
}

HostTensor ToHost(const torch::Tensor& tensor) {
  const char* const begin = static_cast<const char*>(tensor.data_ptr());
  return {DType::kFloat32, tensor.sizes().vec(), {begin, begin + tensor.nbytes()}};
}

// What the fleet's state_dict must be. All of it is float32, the steps' counts too.
NamedTensors StateOf(const LocalOptimizer& optimizer) {
  const std::vector<std::string>& names = optimizer.groups().front().params;
  NamedTensors tensors;
  for (const LocalState::Shard& shard : optimizer.state().shards) {
    const std::string& name = names[shard.parameter];
    tensors[ParameterKey(name)] = ToHost(shard.value);
    for (const TensorState& state : shard.states)
      tensors[StateKey(name, state.name)] = ToHost(state.tensor);
    for (const ScalarState& scalar : optimizer.state().scalars[shard.parameter])
      tensors[StateKey(name, scalar.name)] = ToHost(torch::tensor(scalar.value, torch::kFloat));
  }
  return tensors;
}

absl::Status Train(const Flags& flags) {
  std::vector<TrainingData> parts;
  for (int rank = 0; rank < flags.trainers; ++rank) {
    SHARDSTEP_ASSIGN_OR_RETURN(TrainingData part,
                               TrainingData::Load(flags.data, flags.steps, flags.trainers, rank));
    parts.push_back(std::move(part));
  }
  Network net = MakeNetwork();
  SHARDSTEP_ASSIGN_OR_RETURN(LocalOptimizer optimizer, MakeOptimizer(net));

  TrainingProgress progress(0, flags.steps, /*visible=*/true);
  double accuracy = parts[0].Accuracy(net);
  for (uint64_t version = 0; version < flags.steps; ++version) {
    std::vector<std::vector<Contribution>> contributions(net->parameters().size());
    double loss = 0;
    for (const TrainingData& part : parts)
      loss += Backward(net, *part.At(version), &contributions) / flags.trainers;
    SHARDSTEP_RETURN_IF_ERROR(Step(std::move(contributions), flags.trainers, &optimizer, net));
    if (parts[0].EndsEpoch(version + 1)) accuracy = parts[0].Accuracy(net);
    progress.Show(version + 1, loss, accuracy);
  }

  absl::Status identical = absl::OkStatus();
  if (!flags.compare.empty()) {
    SHARDSTEP_ASSIGN_OR_RETURN(const NamedTensors other, ReadStateFile(flags.compare));
    identical = CompareBits(other, StateOf(optimizer));
  }
  std::printf("accuracy=%.4f%s version=%llu\n", parts[0].Accuracy(net),
              flags.compare.empty() ? ""
              : identical.ok()      ? " identical=yes"
                                    : " identical=no",
              static_cast<unsigned long long>(flags.steps));
  return identical;
}

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  shardstep::Flags flags;
  CLI::App app("Trains the digits' network in one process, as a fleet's trainers would together.");
  app.add_option("--trainers", flags.trainers, "How many trainers' parts each batch has")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--steps", flags.steps, "How many steps to make")->capture_default_str();
  app.add_option("--data", flags.data, "The digits")->capture_default_str();
  app.add_option(
      "--compare", flags.compare,
      "Compare parameters and state with this file, which shardctl state-dict wrote, bit "
      "for bit; fail if they differ");
  CLI11_PARSE(app, argc, argv);
  try {
    const absl::Status status = shardstep::Train(flags);
    if (status.ok()) return 0;
    std::fprintf(stderr, "single: %s\n", std::string(status.message()).c_str());
  } catch (const std::exception& error) {  // LibTorch's
    std::fprintf(stderr, "single: %s\n", error.what());
  }
  return 1;
}
