// The optimizers whose elements depend on each other against PyTorch, or against what was published
// of them: every parameter and state over 20 steps, as close as exact sums and PyTorch's float32
// ones are; and cut in every way that they allow, against the uncut run: every bit. With
// --numerics=native the process keeps MKL's own branch, and that last comparison is all.

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "shardstep/optim/numeric_fingerprint.h"
#include "shardstep/optim/optimizer_factory.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/tests/golden/coupled_fleet.h"
#include "shardstep/tests/golden/golden_file.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

// By "<step>/<parameter>/<value or state>".
using Record = std::map<std::string, at::Tensor>;

at::Tensor Drawn(const GoldenParameter& parameter, int step, size_t index, at::ScalarType dtype) {
  if (!parameter.dtype.empty()) dtype = parameter.dtype == "float32" ? at::kFloat : at::kDouble;
  if (parameter.zero_steps.count(step) > 0) {
    return at::zeros(parameter.shape, at::TensorOptions().dtype(dtype));
  }
  return DrawGradient(step, index, parameter.shape, dtype);
}

void RunCase(const GoldenCase& golden, at::ScalarType dtype, const CoupledSetup& setup,
             Record* record) {
  std::vector<FleetParameter> parameters;
  for (size_t i = 0; i < golden.parameters.size(); ++i) {
    const GoldenParameter& parameter = golden.parameters[i];
    parameters.push_back({parameter.name, Drawn(parameter, 0, i, dtype)});
  }
  CoupledFleet fleet(golden.kind, setup);
  ASSERT_NO_FATAL_FAILURE(fleet.Create(golden.param_groups, parameters));
  for (int step = 1; step <= golden.steps; ++step) {
    if (setup.later_cut && step == golden.steps / 2 + 1) {
      ASSERT_NO_FATAL_FAILURE(fleet.Reshard());
    }
    for (const GoldenChange& change : golden.changes) {
      if (change.step != step) continue;
      for (const auto& [name, value] : change.options) fleet.SetOption(change.group, name, value);
    }
    std::vector<at::Tensor> gradients;
    for (size_t i = 0; i < golden.parameters.size(); ++i) {
      const GoldenParameter& parameter = golden.parameters[i];
      const bool absent = parameter.absent_steps.count(step) > 0;
      gradients.push_back(absent ? at::Tensor() : Drawn(parameter, step, i, dtype));
    }
    ASSERT_NO_FATAL_FAILURE(fleet.Step(gradients));
    if (golden.kept.count(step) == 0) continue;
    for (auto& [key, tensor] : fleet.Record()) (*record)[absl::StrCat(step, "/", key)] = tensor;
  }
}

double LargestOf(const at::Tensor& tensor) {
  return tensor.numel() == 0 ? 0 : tensor.abs().max().item().toDouble();
}

// ATen's bfloat16 products depend on the machine's instructions: elsewhere a unit in their last
// place makes more of a difference.
int BitsOf(const std::string& kind, at::ScalarType dtype) {
  if (kind == "Muon" && at::get_cpu_capability() != "AVX2") return 8;
  return dtype == at::kFloat ? 18 : 47;
}

class CoupledGoldenTest : public testing::TestWithParam<std::tuple<std::string, at::ScalarType>> {
 protected:
  const GoldenCase golden_ = ReadGoldenCase("coupled/" + std::get<0>(GetParam()));
  const at::ScalarType dtype_ = std::get<1>(GetParam());
  const std::vector<CoupledSetup> setups_ = CoupledSetups(CouplingOf(golden_.kind).cut);
};

TEST_P(CoupledGoldenTest, IsThatOfTheFile) {
  Record actual, expected;
  ASSERT_NO_FATAL_FAILURE(RunCase(golden_, dtype_, setups_[0], &actual));
  const std::string prefix = dtype_ == at::kFloat ? "float32/" : "float64/";
  for (const auto& [key, tensor] : golden_.tensors) {
    if (key.rfind(prefix, 0) == 0) expected[key.substr(prefix.size())] = tensor;
  }
  std::vector<std::string> actual_keys, expected_keys;
  for (const auto& [key, tensor] : actual) actual_keys.push_back(key);
  for (const auto& [key, tensor] : expected) expected_keys.push_back(key);
  ASSERT_THAT(actual_keys, testing::ElementsAreArray(expected_keys));
  for (const auto& [key, tensor] : expected) {
    at::Tensor own = actual[key];
    if (golden_.sample > 0 && own.numel() > 4096) {
      own = own.view(-1).slice(0, 0, own.numel(), golden_.sample);
    }
    ASSERT_EQ(own.sizes(), tensor.sizes()) << key;
    ASSERT_EQ(own.scalar_type(), tensor.scalar_type()) << key;
    const double bound = std::ldexp(LargestOf(tensor), -BitsOf(golden_.kind, own.scalar_type()));
    EXPECT_LE(LargestOf(own.sub(tensor)), bound) << key << "\n" << own << "\n" << tensor;
  }
}

TEST_P(CoupledGoldenTest, EveryCutHasTheSameBits) {
  Record whole;
  ASSERT_NO_FATAL_FAILURE(RunCase(golden_, dtype_, setups_[0], &whole));
  for (size_t i = 1; i < setups_.size(); ++i) {
    CoupledSetup setup = setups_[i];
    // Of large ones, those setups that small ones tell least of.
    const bool is_coarse = absl::StrContains(setup.name, "Held") || setup.later_cut != nullptr;
    if (golden_.sample > 0 && !is_coarse) continue;
    if (golden_.sample > 0) setup.block_elements *= 1000;
    SCOPED_TRACE(setup.name);
    Record cut;
    ASSERT_NO_FATAL_FAILURE(RunCase(golden_, dtype_, setup, &cut));
    ASSERT_EQ(cut.size(), whole.size());
    for (const auto& [key, tensor] : whole) {
      const at::Tensor& own = cut.at(key);
      ASSERT_EQ(own.sizes(), tensor.sizes()) << key;
      if (tensor.numel() == 0) continue;
      ASSERT_EQ(std::memcmp(own.const_data_ptr(), tensor.const_data_ptr(), tensor.nbytes()), 0)
          << key << "\n"
          << own << "\nexpected\n"
          << tensor;
    }
  }
}

// PyTorch's param_groups and states, every key in its order.
TEST_P(CoupledGoldenTest, HasTheFilesGroupsAndStates) {
  ASSERT_OK_AND_ASSIGN(const OptionMap defaults, CompleteOptions(golden_.kind, golden_.defaults));
  ASSERT_OK_AND_ASSIGN(const auto optimizer, MakeOptimizer(golden_.kind));
  for (size_t i = 0; i < golden_.groups.size(); ++i) {
    ASSERT_OK_AND_ASSIGN(const ParamGroup group,
                         CompleteGroup(golden_.kind, defaults, golden_.groups[i]));
    std::vector<std::string> actual, expected;
    for (const auto& [name, value] : group.options) {
      actual.push_back(name + "=" + value.ToString());
    }
    for (const auto& [name, value] : golden_.param_groups[i].options) {
      expected.push_back(name + "=" + value.ToString());
    }
    EXPECT_EQ(actual, expected);
    for (const GoldenParameter& parameter : golden_.parameters) {
      const std::vector<std::string>& names = group.params;
      if (std::find(names.begin(), names.end(), parameter.name) == names.end()) continue;
      std::vector<std::string> states;
      for (const StateSpec& state : optimizer->StatesOf(group.options, parameter.shape)) {
        states.push_back(state.name);
      }
      EXPECT_EQ(states, parameter.states) << parameter.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, CoupledGoldenTest,
                         testing::Combine(testing::ValuesIn(ReadGoldenJson("coupled.json")
                                                                .get<std::vector<std::string>>()),
                                          testing::Values(at::kFloat, at::kDouble)),
                         [](const auto& info) {
                           return absl::StrCat(std::get<0>(info.param), "_",
                                               c10::toString(std::get<1>(info.param)));
                         });

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  const bool native = argc > 1 && absl::string_view(argv[1]) == "--numerics=native";
  if (!native) shardstep::UsePortableNumerics();
  at::set_num_threads(1);  // as servers do
  testing::InitGoogleTest(&argc, argv);
  if (native) GTEST_FLAG_SET(filter, "*EveryCutHasTheSameBits*");
  return RUN_ALL_TESTS();
}
