// Kernels and parts against ATen's operators on whole tensors, bit by bit.

#include <ATen/Version.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "shardstep/optim/blocks.h"
#include "shardstep/optim/optimizer_factory.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/optim/parts.h"
#include "shardstep/optim/scalars.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

struct Configuration {
  std::string kind;
  OptionMap options;
};

// Every combination of the options that choose between instructions.
std::vector<Configuration> Configurations() {
  std::vector<Configuration> result;
  const auto add = [&result](const std::string& kind, OptionMap given) {
    absl::StatusOr<OptionMap> full = CompleteOptions(kind, given);
    ASSERT_OK(full);
    result.push_back({kind, *std::move(full)});
  };
  for (const bool maximize : {false, true}) {
    for (const double weight_decay : {0.0, 0.1}) {
      const OptionMap common = {{"maximize", maximize}, {"weight_decay", weight_decay}};
      const auto with = [&common](std::vector<std::pair<std::string, OptionValue>> options) {
        OptionMap map = common;
        for (auto& [name, value] : options) map.Set(name, std::move(value));
        return map;
      };
      add("SGD", common);
      add("SGD", with({{"momentum", 0.9}}));
      add("SGD", with({{"momentum", 0.9}, {"dampening", 0.3}}));
      add("SGD", with({{"momentum", 0.9}, {"nesterov", true}}));
      for (const bool amsgrad : {false, true}) {
        add("Adam", with({{"amsgrad", amsgrad}}));
        add("AdamW", with({{"amsgrad", amsgrad}}));
        add("Adam", with({{"amsgrad", amsgrad}, {"betas", OptionValue::List{0.4, 0.5}}}));
      }
      add("Adagrad", common);
      add("RMSprop", common);
      add("RMSprop", with({{"momentum", 0.9}, {"eps", 1e-3}}));
      add("Adadelta", common);
      add("Adadelta", with({{"rho", 0.6}, {"eps", 1e-3}}));
      add("Adamax", common);
      add("Adamax", with({{"betas", OptionValue::List{0.4, 0.5}}}));
      for (const bool decoupled : {false, true}) {
        add("NAdam", with({{"decoupled_weight_decay", decoupled}}));
        // Rectified or not in the first steps.
        for (const double beta2 : {0.999, 0.1}) {
          add("RAdam", with({{"decoupled_weight_decay", decoupled},
                             {"betas", OptionValue::List{0.9, beta2}}}));
        }
      }
      if (weight_decay == 0) {
        add("Rprop", {{"maximize", maximize}});
        add("Rprop", {{"maximize", maximize},
                      {"etas", OptionValue::List{0.25, 3.0}},
                      {"step_sizes", OptionValue::List{0.5, 1.0}}});
      }
      // The average begins in the second step.
      add("ASGD", with({{"t0", -5.0}}));
      add("Adagrad", with({{"lr_decay", 0.5}, {"eps", 1e-3}}));
    }
  }
  return result;
}

// Numbers of all kinds, mostly ordinary ones.
template <typename T>
at::Tensor Numbers(int64_t length, bool negative, unsigned seed) {
  using Limits = std::numeric_limits<T>;
  const T special[] = {0,
                       T{-0.0},
                       Limits::denorm_min(),
                       Limits::min() / 3,
                       -Limits::min() / 7,
                       Limits::max(),
                       Limits::infinity(),
                       -Limits::infinity(),
                       Limits::quiet_NaN(),
                       T{1e-20}};
  std::mt19937 random(seed);
  std::normal_distribution<T> normal;
  at::Tensor tensor = at::empty({length}, c10::CppTypeToScalarType<T>::value);
  T* data = tensor.template mutable_data_ptr<T>();
  for (int64_t i = 0; i < length; ++i) {
    data[i] = random() % 3 == 0 ? special[random() % std::size(special)] : normal(random);
    if (!negative) data[i] = std::abs(data[i]);
  }
  return tensor;
}

template <typename T>
void ExpectSameBits(const at::Tensor& a, const at::Tensor& b) {
  const T* x = a.const_data_ptr<T>();
  const T* y = b.const_data_ptr<T>();
  for (int64_t i = 0; i < a.numel(); ++i) {
    if (std::isnan(x[i]) && std::isnan(y[i])) continue;
    ASSERT_EQ(std::memcmp(x + i, y + i, sizeof(T)), 0)
        << "element " << i << " of " << a.numel() << ": " << x[i] << " and " << y[i];
  }
}

// A parameter that lies `offset` elements into its memory, with a gradient and states of its own.
template <typename T>
Block MakeBlock(size_t num_states, int64_t length, int64_t offset, bool in_place) {
  const auto part = [=](bool negative, unsigned seed) {
    return Numbers<T>(length + offset, negative, seed).narrow(0, offset, length);
  };
  Block block;
  block.gradient = part(true, 1);
  block.value_in = part(true, 2);
  block.value_out = in_place ? block.value_in : part(true, 3);
  for (size_t i = 0; i < num_states; ++i) {
    const at::Tensor in = part(false, 4 + i);
    block.states.push_back({in, in_place ? in : part(true, 9 + i)});
  }
  return block;
}

size_t CountTensors(const std::vector<StateSpec>& specs) {
  size_t count = 0;
  for (const StateSpec& spec : specs) count += spec.kind == StateSpec::Kind::kLikeParameter;
  return count;
}

std::vector<double> Scalars(const Optimizer& optimizer, const OptionMap& options) {
  std::vector<double> scalars;
  for (const StateSpec& spec : optimizer.States(options)) {
    if (spec.kind != StateSpec::Kind::kScalar) continue;
    scalars.push_back(optimizer.InitialValue(spec.name, options).value_or(0));
  }
  return scalars;
}

void ScaleWhole(Block& block) {
  block.gradient =
      at::mul(block.gradient, ScalarTensor(block.coefficient, block.gradient.scalar_type()));
  block.coefficient = 1;
}

struct Shape {
  int64_t length;
  int64_t offset;
};

// Two steps of `updates[0]` and of `updates[1]`, which get the same.
template <typename T>
void ExpectSameSteps(const std::vector<BlockUpdate>& plain, const std::vector<BlockUpdate>& fast,
                     size_t num_states, bool first_makes_state, double coefficient, Shape shape) {
  const bool in_place = shape.length % 2 == 0;
  Block expected = MakeBlock<T>(num_states, shape.length, shape.offset, in_place);
  Block actual = MakeBlock<T>(num_states, shape.length, shape.offset, in_place);
  for (size_t step = 0; step < plain.size(); ++step) {
    for (Block* block : {&expected, &actual}) {
      block->gradient = Numbers<T>(shape.length, true, 50 + step);
      block->coefficient = coefficient;
      if (step > 0) block->value_in = block->value_out;
      for (StateBlock& state : block->states) {
        if (step > 0) state.in = state.out;
        if (step == 0 && first_makes_state) state.in = at::Tensor();
      }
    }
    if (coefficient != 1) ScaleWhole(expected);
    plain[step](expected);
    fast[step](actual);
    ExpectSameBits<T>(expected.value_out, actual.value_out);
    for (size_t i = 0; i < num_states; ++i) {
      ExpectSameBits<T>(expected.states[i].out, actual.states[i].out);
    }
  }
}

// Each configuration in `dtype`; `fast` makes an update from what Begin or BeginVectorized gives.
template <typename T>
void ExpectKernelsMatch(const Configuration& configuration, const std::vector<Shape>& shapes) {
  const at::ScalarType dtype = c10::CppTypeToScalarType<T>::value;
  absl::StatusOr<std::unique_ptr<const Optimizer>> optimizer = MakeOptimizer(configuration.kind);
  ASSERT_OK(optimizer);
  const OptionMap& options = configuration.options;
  std::vector<double> scalars = Scalars(**optimizer, options);
  std::vector<double> fast_scalars = scalars;
  std::vector<BlockUpdate> plain;
  std::vector<BlockUpdate> fast;
  for (int step = 0; step < 2; ++step) {
    plain.push_back((*optimizer)->Begin(options, dtype, absl::MakeSpan(scalars)));
    fast.push_back((*optimizer)->BeginVectorized(options, dtype, absl::MakeSpan(fast_scalars)));
    ASSERT_NE(fast.back(), nullptr);
  }
  EXPECT_EQ(scalars, fast_scalars);
  const size_t num_states = CountTensors((*optimizer)->States(options));
  for (const double coefficient : {1.0, 0.37}) {
    for (const Shape& shape : shapes) {
      SCOPED_TRACE(configuration.kind + " of " + std::to_string(shape.length) + " at " +
                   std::to_string(shape.offset));
      ExpectSameSteps<T>(plain, fast, num_states, configuration.kind == "SGD", coefficient, shape);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

bool HasKernels() { return at::get_cpu_capability() != "DEFAULT"; }

TEST(VectorizedTest, KernelsHaveAtensBitsAtEveryLengthAndOffset) {
  if (!HasKernels()) GTEST_SKIP() << "there are no kernels for this machine";
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  std::vector<Shape> shapes;
  for (int64_t length = 0; length <= 70; ++length) shapes.push_back({length, length % 5});
  for (const Configuration& configuration : Configurations()) {
    ExpectKernelsMatch<float>(configuration, shapes);
    ExpectKernelsMatch<double>(configuration, shapes);
    if (HasFatalFailure()) return;
  }
}

TEST(VectorizedTest, KernelsHaveAtensBitsOverSeveralParts) {
  if (!HasKernels()) GTEST_SKIP() << "there are no kernels for this machine";
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  for (const Configuration& configuration : Configurations()) {
    ExpectKernelsMatch<float>(configuration, {{20'003, 1}});
    ExpectKernelsMatch<double>(configuration, {{20'003, 1}});
    if (HasFatalFailure()) return;
  }
}

TEST(VectorizedTest, WithoutFusedMultiplyAddThereIsNoKernelAndNoStepIsCounted) {
  if (HasKernels()) GTEST_SKIP() << "there are kernels for this machine";
  for (const Configuration& configuration : Configurations()) {
    absl::StatusOr<std::unique_ptr<const Optimizer>> optimizer = MakeOptimizer(configuration.kind);
    ASSERT_OK(optimizer);
    std::vector<double> scalars = Scalars(**optimizer, configuration.options);
    const std::vector<double> before = scalars;
    EXPECT_EQ(
        (*optimizer)->BeginVectorized(configuration.options, at::kFloat, absl::MakeSpan(scalars)),
        nullptr);
    EXPECT_EQ(scalars, before);
  }
}

TEST(PartsTest, PartsHaveTheBitsOfTheWhole) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  for (const char* kind : {"SGD", "Adam", "AdamW", "Adagrad", "RMSprop", "Adadelta", "NAdam",
                           "RAdam", "Adamax", "Rprop", "ASGD"}) {
    SCOPED_TRACE(kind);
    absl::StatusOr<std::unique_ptr<const Optimizer>> optimizer = MakeOptimizer(kind);
    absl::StatusOr<OptionMap> options = CompleteOptions(kind, {});
    ASSERT_OK(optimizer);
    ASSERT_OK(options);
    EXPECT_TRUE((*optimizer)->UpdatesAnyPart());
    std::vector<double> scalars = Scalars(**optimizer, *options);
    std::vector<BlockUpdate> plain;
    std::vector<BlockUpdate> parts;
    for (int step = 0; step < 2; ++step) {
      plain.push_back((*optimizer)->Begin(*options, at::kFloat, absl::MakeSpan(scalars)));
      parts.push_back(ScaledInParts(plain.back(), true));
    }
    const size_t num_states = CountTensors((*optimizer)->States(*options));
    for (const double coefficient : {1.0, 0.37}) {
      ExpectSameSteps<float>(plain, parts, num_states, std::string(kind) == "SGD", coefficient,
                             {2 * kPartElements + 77, 3});
    }
  }
}

}  // namespace
}  // namespace shardstep
