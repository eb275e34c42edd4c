// The same numbers anywhere: fleets of several sizes, with every kind of sharding, 1 and 2 threads,
// clipping on and off, against one LocalOptimizer that holds everything whole: every bit of every
// parameter and state entry.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/client/client.h"
#include "shardstep/optim/local_optimizer.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/optim/reduction.h"
#include "shardstep/optim/squared_norm.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/tests/test_client.h"

namespace shardstep {
namespace {

constexpr int kTrainers = 2;
constexpr int kSteps = 20;
constexpr double kMaxNorm = 3;

Placement On(int server) { return {server, "cpu"}; }

// Parameters cut in every way that a fleet of so many servers has.
template <typename T>
TensorSet<T> Parameters(int servers) {
  TensorSet<T> set;
  const auto last = servers - 1;
  const Chunk columns = {1, Rows(servers).placements};
  Enumerable unequal = {
      {{{0, 0}, {1, 5}, On(0)}, {{1, 0}, {4, 2}, On(last)}, {{1, 2}, {4, 3}, On(last / 2)}}};
  const Chunk twice_on_one = {0, {On(last), On(last), On(0)}};
  set.Add("planned", {3, 7});
  set.Add("whole", {4, 4}, 0, Whole{last});
  set.Add("rows", {11, 3}, 0, Rows(servers));
  set.Add("fewer_rows_than_servers", {2, 3}, 0, Rows(servers));
  set.Add("columns", {3, 8}, 0, columns);
  set.Add("grid", {5, 7}, 0, Grid({5, 7}, {2, 2}, {On(0), On(last), On(last), On(0)}).value());
  set.Add("unequal", {5, 5}, 0, unequal);
  set.Add("twice_on_one", {8, 2}, 0, twice_on_one);
  set.Add("scalar", {}, 0, Whole{last});
  set.Add("empty", {0, 3}, 0, Rows(servers));
  set.Add("large", {40'000}, 0, Rows(servers));  // several blocks, and the pool's threads
  return set;
}

// A number in [-1, 1) that depends on all of its arguments, and on nothing else.
double Draw(int step, int trainer, size_t parameter, size_t element) {
  uint64_t x = ((step * 3 + trainer) * uint64_t{1000003} + parameter) * uint64_t{1000033} + element;
  x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9;
  return static_cast<double>(static_cast<int64_t>(x ^ (x >> 32))) * 0x1p-63;
}

// Trainer 1 lacks a gradient here and there; in some steps nobody has one.
bool HasGradient(int step, int trainer, size_t parameter) {
  const int turn = (step + static_cast<int>(parameter)) % 7;
  return turn != 0 && (turn != 1 || trainer == 0);
}

template <typename T>
std::vector<T> DrawAll(int step, int trainer, size_t parameter, size_t elements) {
  std::vector<T> values(elements);
  for (size_t i = 0; i < elements; ++i) {
    values[i] = static_cast<T>(Draw(step, trainer, parameter, i));
  }
  return values;
}

template <typename T>
at::Tensor ToTensor(const std::vector<T>& values) {
  const at::ScalarType dtype = sizeof(T) == sizeof(float) ? at::kFloat : at::kDouble;
  at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, dtype);
  if (!values.empty()) std::memcpy(tensor.data_ptr(), values.data(), tensor.nbytes());
  return tensor;
}

// What one process computes.
template <typename T>
class OneProcess {
 public:
  OneProcess(const OptimizerOptions& options, const std::vector<NamedTensor>& parameters) {
    ParamGroup group;
    group.options = CompleteOptions(options.kind, options.given).value();
    std::vector<ShardValue> shards;
    for (size_t i = 0; i < parameters.size(); ++i) {
      group.params.push_back(parameters[i].name);
      elements_.push_back(parameters[i].value.num_elements());
      shards.push_back({i, ToTensor(DrawAll<T>(0, 0, i, elements_.back()))});
    }
    const std::vector<std::string> names = group.params;
    optimizer_.emplace(
        LocalOptimizer::Create(options.kind, {group}, names, std::move(shards)).value());
  }

  void Step(int step, bool clip) {
    std::vector<ShardGradient> gradients(elements_.size());
    SquaredNorm squares;
    for (size_t i = 0; i < elements_.size(); ++i) {
      std::vector<Contribution> contributions;
      for (int trainer = 0; trainer < kTrainers; ++trainer) {
        if (!HasGradient(step, trainer, i)) continue;
        contributions.push_back({ToTensor(DrawAll<T>(step, trainer, i, elements_[i])), 1});
      }
      if (contributions.empty()) continue;
      ReductionOptions mean;
      mean.divisor = kTrainers;
      const at::ScalarType dtype = contributions[0].gradient.scalar_type();
      auto reduction = Reduction::Create(std::move(contributions), dtype, elements_[i], mean);
      ASSERT_OK(reduction);
      for (size_t block = 0; block < reduction->num_blocks(); ++block) reduction->RunBlock(block);
      ASSERT_OK_AND_ASSIGN(const ReducedGradient reduced, reduction->Finish());
      gradients[i] = reduced.gradient;
      squares = Sum(squares, reduced.squares);
    }
    norm_ = Norm(squares, sizeof(T) == sizeof(double));
    std::optional<double> coefficient;
    if (clip) coefficient = ClipCoefficient(norm_, kMaxNorm, sizeof(T) == sizeof(double));
    ASSERT_OK(optimizer_->BeginStep(std::move(gradients), coefficient));
    for (size_t block = 0; block < optimizer_->num_blocks(); ++block) optimizer_->RunBlock(block);
    ASSERT_OK(optimizer_->FinishStep());
  }

  double norm() const { return norm_; }
  const LocalState& state() const { return optimizer_->state(); }

 private:
  std::vector<int64_t> elements_;
  std::optional<LocalOptimizer> optimizer_;
  double norm_ = 0;
};

// The trainer's part of a run: returns the norms that the steps reported.
template <typename T>
void Train(ShardedOptimizer& optimizer, bool clip, std::vector<double>* norms) {
  StepOptions options = WithTimeout(absl::Minutes(1));  // the other trainer may have failed
  if (clip) options.clip_grad_norm = kMaxNorm;
  const std::vector<ParameterInfo>& parameters = optimizer.named_params();
  for (int step = 1; step <= kSteps; ++step) {
    std::vector<std::vector<T>> gradients(parameters.size());
    ASSERT_OK_AND_ASSIGN(GradientPush push, optimizer.StartPush());
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (!HasGradient(step, optimizer.trainer_rank(), i)) continue;
      gradients[i] =
          DrawAll<T>(step, optimizer.trainer_rank(), i, NumElements(parameters[i].sizes).value());
      ASSERT_OK(
          push.Add(parameters[i].name, MakeTensorView(gradients[i].data(), parameters[i].sizes)));
    }
    ASSERT_OK(push.Finish());
    ASSERT_OK_AND_ASSIGN(const StepResult result, optimizer.Step(options));
    norms->push_back(result.grad_norm);
  }
}

bool SameBits(const void* a, const at::Tensor& b, size_t bytes) {
  return bytes == b.nbytes() && (bytes == 0 || std::memcmp(a, b.const_data_ptr(), bytes) == 0);
}

class ShardingInvarianceTest : public testing::TestWithParam<std::tuple<int, int>> {
 protected:
  void SetUp() override {
    MiniFleetOptions options;
    std::tie(options.servers, options.threads) = GetParam();
    fleet_ = MakeInProcessFleet(options);
    ASSERT_OK(fleet_->Start());
    ASSERT_OK_AND_ASSIGN(Client client, Client::Connect(fleet_->fleet_file()));
    client_ = std::make_unique<Client>(std::move(client));
  }

  template <typename T>
  void Check(const std::string& name, const OptimizerOptions& options, bool clip) {
    SCOPED_TRACE(name);
    TensorSet<T> values = Parameters<T>(fleet_->options().servers);
    for (size_t i = 0; i < values.named().size(); ++i) {
      const absl::Span<T> value = values[values.named()[i].name];
      const std::vector<T> drawn = DrawAll<T>(0, 0, i, value.size());
      std::copy(drawn.begin(), drawn.end(), value.begin());
    }
    OneProcess<T> expected(options, values.named());
    std::vector<double> norms[kTrainers];
    std::vector<ShardedOptimizer> trainers;
    for (int rank = 0; rank < kTrainers; ++rank) {
      ASSERT_OK_AND_ASSIGN(
          ShardedOptimizer trainer,
          client_->CreateOptimizer(name, values.named(), options, Synchronous(kTrainers), rank));
      trainers.push_back(std::move(trainer));
    }
    std::thread other([&] { Train<T>(trainers[1], clip, &norms[1]); });
    Train<T>(trainers[0], clip, &norms[0]);
    other.join();
    ASSERT_EQ(norms[0].size(), static_cast<size_t>(kSteps));
    EXPECT_EQ(norms[0], norms[1]);
    for (int step = 1; step <= kSteps; ++step) {
      ASSERT_NO_FATAL_FAILURE(expected.Step(step, clip));
      EXPECT_EQ(norms[0][step - 1], expected.norm()) << "norm of step " << step;
    }
    ASSERT_OK(trainers[0].Pull(values.named()));
    ASSERT_OK_AND_ASSIGN(const StateDict state, trainers[0].state());
    EXPECT_EQ(state.version, static_cast<uint64_t>(kSteps));
    for (size_t i = 0; i < values.named().size(); ++i) {
      const std::string& parameter = values.named()[i].name;
      const absl::Span<T> value = values[parameter];
      EXPECT_TRUE(
          SameBits(value.data(), expected.state().shards[i].value, value.size() * sizeof(T)))
          << parameter;
      ExpectSameState(parameter, state, expected.state(), i);
    }
    trainers.clear();
    ASSERT_OK(client_->DeleteOptimizer(name));
  }

  static void ExpectSameState(const std::string& parameter, const StateDict& actual,
                              const LocalState& expected, size_t index) {
    static const std::map<std::string, StateValue> kNone;
    const auto found = actual.state.find(parameter);
    const auto& states = found == actual.state.end() ? kNone : found->second;
    size_t count = 0;
    for (const TensorState& tensor : expected.shards[index].states) {
      ASSERT_EQ(states.count(tensor.name), 1u) << parameter << " " << tensor.name;
      const HostTensor& host = std::get<HostTensor>(states.at(tensor.name));
      EXPECT_TRUE(SameBits(host.bytes.data(), tensor.tensor, host.bytes.size()))
          << parameter << " " << tensor.name;
      ++count;
    }
    for (const ScalarState& scalar : expected.scalars[index]) {
      ASSERT_EQ(states.count(scalar.name), 1u) << parameter << " " << scalar.name;
      EXPECT_EQ(std::get<double>(states.at(scalar.name)), scalar.value)
          << parameter << " " << scalar.name;
      ++count;
    }
    EXPECT_EQ(states.size(), count) << parameter;
  }

  std::unique_ptr<MiniFleet> fleet_;
  std::unique_ptr<Client> client_;
};

TEST_P(ShardingInvarianceTest, EveryBitIsThatOfOneProcess) {
  const std::vector<OptimizerOptions> optimizers = {
      SGDOptions(0.1).momentum(0.9).nesterov(true).weight_decay(0.01),
      SGDOptions(0.1).momentum(0.9).dampening(0.5).maximize(true),
      AdamOptions(0.01).amsgrad(true).weight_decay(0.1),
      AdamWOptions(0.01),
      AdagradOptions(0.1).initial_accumulator_value(0.1).weight_decay(0.1),
      RMSpropOptions(0.01).momentum(0.9).centered(true),
      AdadeltaOptions(),
      NAdamOptions(0.01),
      RAdamOptions(0.01).betas(0.9, 0.9),
      AdamaxOptions(0.01),
      RpropOptions(0.01),
      ASGDOptions(0.1).t0(2)};
  for (size_t i = 0; i < optimizers.size(); ++i) {
    for (const bool clip : {false, true}) {
      const std::string name = absl::StrCat(optimizers[i].kind, i, clip ? "-clipped" : "");
      Check<float>(name + "-float32", optimizers[i], clip);
      Check<double>(name + "-float64", optimizers[i], clip);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Fleets, ShardingInvarianceTest,
                         testing::Combine(testing::Values(1, 2, 3, 5), testing::Values(1, 2)),
                         [](const testing::TestParamInfo<std::tuple<int, int>>& info) {
                           return absl::StrCat(std::get<0>(info.param), "Servers",
                                               std::get<1>(info.param), "Threads");
                         });

}  // namespace
}  // namespace shardstep
