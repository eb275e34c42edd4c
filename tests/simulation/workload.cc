#include "shardstep/tests/simulation/workload.h"

#include <utility>

#include "ATen/ops/zeros.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/sharding/status_macros.h"

namespace shardstep {
namespace {

constexpr int64_t kLedgerPerServer = 6;
// Above what a server does on the thread that it is on.
constexpr int64_t kLargeLedgerPerServer = 6000;
constexpr int64_t kMomentumPerServer = 5;
constexpr uint64_t kMaxStaleness = 1 << 20;

std::vector<float> ToVector(const at::Tensor& tensor) {
  const auto* const data = static_cast<const float*>(tensor.data_ptr());
  return {data, data + tensor.numel()};
}

}  // namespace

OptimizerDefinition Workload::Definition() const {
  std::vector<Placement> placements;
  for (int server = 0; server < servers; ++server) placements.push_back({server, "cpu"});
  OptimizerDefinition definition;
  definition.name = kOptimizer;
  definition.kind = coupled ? "LARS" : "SGD";
  // Options that are constants: they pass the checks.
  definition.defaults =
      CompleteOptions(definition.kind, {{"lr", 1.0}, {"momentum", 0.0}, {"weight_decay", 0.0}})
          .value();
  ParamGroup ledger{definition.defaults, {"ledger"}};
  ParamGroup momentum{definition.defaults, {"m"}};
  momentum.options.Set("lr", 0.125);
  momentum.options.Set("momentum", 0.9);
  if (coupled) momentum.options.Set("weight_decay", 0.01);
  for (const char* name : {"ledger", "m"}) {
    const Shape sizes = {elements(static_cast<int>(definition.parameters.size()))};
    definition.parameters.push_back({name, DType::kFloat32, sizes, Chunk{0, placements}});
    definition.sharded.push_back(false);
  }
  definition.groups = {ledger, momentum};
  if (synchronous) {
    definition.mode = Synchronous(trainers);
  } else {
    definition.mode = Asynchronous(kMaxStaleness);
  }
  return definition;
}

int64_t Workload::elements(int parameter) const {
  if (parameter == kMomentum) return servers * kMomentumPerServer;
  return servers * (large ? kLargeLedgerPerServer : kLedgerPerServer);
}

int Workload::Pushes(int rank, uint64_t step) const { return (step * 5 + rank) % 4 == 0 ? 2 : 1; }

std::vector<float> Workload::Gradient(int parameter, int rank, uint64_t step, int push) const {
  // The mean divides by the number of trainers; lr is 1 and subtracts.
  const float unit = synchronous ? -static_cast<float>(trainers) : -1.0f;
  const int pushes = Pushes(rank, step);
  std::vector<float> gradient(elements(parameter));
  for (size_t p = 0; p < gradient.size(); ++p) {
    if (parameter == kMomentum) {
      // No sums of these are exact: each order has its own.
      const auto number = static_cast<float>((step * 7 + rank * 3 + push * 2 + p * 5) % 16);
      gradient[p] = (number - 7.3f) * (rank == 1 ? 0.013f : 1.7f);
    } else {
      const float whole = static_cast<int>(p) % trainers == rank ? unit : 0.0f;
      gradient[p] = push == 0 ? whole + static_cast<float>(pushes - 1) : -1.0f;
    }
  }
  return gradient;
}

absl::StatusOr<Reference> Reference::Create(const Workload& workload) {
  const OptimizerDefinition definition = workload.Definition();
  std::vector<ShardValue> shards;
  for (const int parameter : {Workload::kLedger, Workload::kMomentum}) {
    shards.push_back(
        {static_cast<size_t>(parameter), at::zeros({workload.elements(parameter)}, at::kFloat)});
  }
  SHARDSTEP_ASSIGN_OR_RETURN(LocalOptimizer optimizer,
                             LocalOptimizer::Create(definition.kind, definition.groups,
                                                    {"ledger", "m"}, std::move(shards)));
  return Reference(workload, std::move(optimizer));
}

absl::Status Reference::Step(const std::map<int, uint64_t>& contributions) {
  const float divisor = workload_.synchronous ? static_cast<float>(workload_.trainers) : 1.0f;
  std::vector<ShardGradient> gradients;
  for (const int parameter : {Workload::kLedger, Workload::kMomentum}) {
    at::Tensor sum = at::zeros({workload_.elements(parameter)}, at::kFloat);
    auto* const data = static_cast<float*>(sum.data_ptr());
    for (const auto& [rank, step] : contributions) {
      for (int push = 0; push < workload_.Pushes(rank, step); ++push) {
        const std::vector<float> gradient = workload_.Gradient(parameter, rank, step, push);
        for (size_t p = 0; p < gradient.size(); ++p) data[p] += gradient[p];
      }
    }
    for (int64_t p = 0; p < sum.numel(); ++p) data[p] /= divisor;
    gradients.push_back(std::move(sum));
  }
  SHARDSTEP_RETURN_IF_ERROR(optimizer_.BeginStep(std::move(gradients), std::nullopt));
  const auto run_blocks = [this] {
    for (size_t block = 0; block < optimizer_.num_blocks(); ++block) optimizer_.RunBlock(block);
  };
  run_blocks();
  for (int round = 0; round < optimizer_.reduce_rounds(); ++round) {
    // All sums are of whole parameters: there is nobody to add to them.
    SHARDSTEP_RETURN_IF_ERROR(optimizer_.FinishRound().status());
    SHARDSTEP_RETURN_IF_ERROR(optimizer_.BeginRound({}));
    run_blocks();
  }
  SHARDSTEP_RETURN_IF_ERROR(optimizer_.FinishStep());
  ++version_;
  return absl::OkStatus();
}

std::vector<float> Reference::Values(int parameter) const {
  return ToVector(optimizer_.state().shards[parameter].value);
}

std::vector<float> Reference::MomentumBuffer() const {
  const auto& states = optimizer_.state().shards[Workload::kMomentum].states;
  return states.empty() ? std::vector<float>() : ToVector(states[0].tensor);
}

}  // namespace shardstep
