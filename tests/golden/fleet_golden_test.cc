// Runs on one to three servers, add_param_group and a load in the middle of a run, on a fleet,
// against PyTorch: every bit of every parameter and state.

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ATen/Parallel.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/client/client.h"
#include "shardstep/optim/numeric_fingerprint.h"
#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/golden/golden_file.h"
#include "shardstep/tests/mini_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/tests/test_client.h"

namespace shardstep {
namespace {

template <typename T>
constexpr at::ScalarType kScalarType = sizeof(T) == 4 ? at::kFloat : at::kDouble;

double NumberOf(const at::Tensor& scalar) { return scalar.item<double>(); }

// The numbers that generate.py draws, parameter by parameter.
template <typename T>
class Run {
 public:
  Run(const GoldenCase& golden, MiniFleet* fleet) : golden_(golden), fleet_(fleet) {}

  absl::Status Create() {
    SHARDSTEP_ASSIGN_OR_RETURN(Client client, Client::Connect(fleet_->fleet_file()));
    std::vector<ParameterGroup> groups = {Group(0)};
    if (golden_.added_at == 0) groups.push_back(Group(1));
    SHARDSTEP_ASSIGN_OR_RETURN(
        ShardedOptimizer optimizer,
        client.CreateOptimizer("m", groups, OptimizerOptions{golden_.kind, golden_.defaults},
                               Synchronous(1), 0));
    optimizer_ = std::make_unique<ShardedOptimizer>(std::move(optimizer));
    return absl::OkStatus();
  }

  absl::Status Step(int step) {
    if (step == golden_.added_at) {
      SHARDSTEP_RETURN_IF_ERROR(optimizer_->AddParamGroup(Group(1)));
    }
    for (const GoldenChange& change : golden_.changes) {
      if (change.step != step) continue;
      for (const auto& [name, value] : change.options) {
        SHARDSTEP_RETURN_IF_ERROR(
            optimizer_->SetOption(static_cast<int>(change.group), name, value));
      }
    }
    TensorSet<T> gradients;
    for (size_t i = 0; i < golden_.parameters.size(); ++i) {
      const GoldenParameter& parameter = golden_.parameters[i];
      const bool there = step >= golden_.added_at || InGroup(0, parameter.name);
      if (!there || parameter.absent_steps.count(step) > 0) continue;
      gradients.Add(parameter.name, Sizes(parameter));
      if (parameter.zero_steps.count(step) > 0) continue;
      Copy(DrawGradient(step, i, parameter.shape, kScalarType<T>), gradients[parameter.name]);
    }
    return PushAndStep(*optimizer_, gradients).status();
  }

  // Compares everything with PyTorch's numbers after `step`, if the golden file has them.
  void Compare(int step) {
    if (golden_.kept.count(step) == 0) return;
    ASSERT_OK_AND_ASSIGN(const StateDict dict, optimizer_->state_dict());
    const std::string prefix = absl::StrCat(sizeof(T) == 4 ? "float32/" : "float64/", step, "/");
    size_t compared = 0;
    for (const auto& [key, tensor] : golden_.tensors) {
      if (key.compare(0, prefix.size(), prefix) != 0) continue;
      const size_t slash = key.rfind('/');
      const std::string name = key.substr(prefix.size(), slash - prefix.size());
      const std::string what = key.substr(slash + 1);
      if (step < golden_.added_at && InGroup(1, name)) continue;
      ++compared;
      if (what == "value") {
        ASSERT_TRUE(Same(tensor, dict.parameters.at(name))) << key;
        continue;
      }
      ASSERT_TRUE(dict.state.count(name) > 0 && dict.state.at(name).count(what) > 0) << key;
      const StateValue& value = dict.state.at(name).at(what);
      if (const double* scalar = std::get_if<double>(&value)) {
        EXPECT_EQ(*scalar, NumberOf(tensor)) << key;
      } else {
        EXPECT_TRUE(Same(tensor, std::get<HostTensor>(value))) << key;
      }
    }
    size_t read = dict.parameters.size();
    for (const auto& [name, states] : dict.state) read += states.size();
    EXPECT_EQ(read, compared);
  }

  ShardedOptimizer& optimizer() { return *optimizer_; }

 private:
  static Shape Sizes(const GoldenParameter& parameter) {
    return Shape(parameter.shape.begin(), parameter.shape.end());
  }
  static void Copy(const at::Tensor& from, absl::Span<T> to) {
    std::memcpy(to.data(), from.contiguous().data_ptr(), to.size() * sizeof(T));
  }
  static bool Same(const at::Tensor& expected, const HostTensor& actual) {
    return expected.nbytes() == actual.bytes.size() &&
           std::memcmp(expected.contiguous().data_ptr(), actual.bytes.data(),
                       actual.bytes.size()) == 0;
  }
  bool InGroup(size_t group, const std::string& name) const {
    const std::vector<std::string>& names = golden_.groups[group].params;
    return std::find(names.begin(), names.end(), name) != names.end();
  }
  ParameterGroup Group(size_t index) {
    ParameterGroup group;
    group.options = golden_.groups[index].options;
    for (size_t i = 0; i < golden_.parameters.size(); ++i) {
      const GoldenParameter& parameter = golden_.parameters[i];
      if (!InGroup(index, parameter.name)) continue;
      values_.Add(parameter.name, Sizes(parameter));
      Copy(DrawGradient(0, i, parameter.shape, kScalarType<T>), values_[parameter.name]);
      group.parameters.push_back(values_.named().back());
    }
    return group;
  }

  const GoldenCase& golden_;
  MiniFleet* const fleet_;
  TensorSet<T> values_;
  std::unique_ptr<ShardedOptimizer> optimizer_;
};

MiniFleetOptions Servers(int servers) {
  MiniFleetOptions options;
  options.servers = servers;
  return options;
}

template <typename T>
void AddInTheMiddle(const std::string& name) {
  const GoldenCase golden = ReadGoldenCase(name);
  ASSERT_EQ(golden.added_at, 5);
  const auto fleet = MakeInProcessFleet(Servers(3));
  ASSERT_OK(fleet->Start());
  Run<T> run(golden, fleet.get());
  ASSERT_OK(run.Create());
  for (int step = 1; step <= golden.steps; ++step) {
    ASSERT_OK(run.Step(step)) << step;
    run.Compare(step);
  }
}

// All steps on one to three servers.
template <typename T>
void RunOnServers(const std::string& name) {
  const GoldenCase golden = ReadGoldenCase(name);
  for (int servers = 1; servers <= 3; ++servers) {
    SCOPED_TRACE(servers);
    const auto fleet = MakeInProcessFleet(Servers(servers));
    ASSERT_OK(fleet->Start());
    Run<T> run(golden, fleet.get());
    ASSERT_OK(run.Create());
    run.Compare(0);
    for (int step = 1; step <= golden.steps; ++step) {
      ASSERT_OK(run.Step(step)) << step;
      run.Compare(step);
    }
  }
}

// Ten steps on three servers; their state_dict goes on on two, under another lineage.
template <typename T>
void LoadInTheMiddle(const std::string& name) {
  const GoldenCase golden = ReadGoldenCase(name);
  const auto first_fleet = MakeInProcessFleet(Servers(3));
  ASSERT_OK(first_fleet->Start());
  Run<T> first(golden, first_fleet.get());
  ASSERT_OK(first.Create());
  for (int step = 1; step <= 10; ++step) ASSERT_OK(first.Step(step)) << step;
  ASSERT_OK_AND_ASSIGN(const StateDict dict, first.optimizer().state_dict());
  const auto second_fleet = MakeInProcessFleet(Servers(2));
  ASSERT_OK(second_fleet->Start());
  Run<T> second(golden, second_fleet.get());
  ASSERT_OK(second.Create());
  // Wrong numbers, all of which the load replaces.
  for (int step = 17; step < 20; ++step) ASSERT_OK(second.Step(step)) << step;
  ASSERT_OK_AND_ASSIGN(const LoadResult loaded, second.optimizer().LoadStateDict(dict));
  EXPECT_EQ(loaded.version, dict.version);
  second.Compare(10);
  for (int step = 11; step <= golden.steps; ++step) ASSERT_OK(second.Step(step)) << step;
  second.Compare(golden.steps);
}

class AddedTest : public testing::TestWithParam<const char*> {};
TEST_P(AddedTest, Float32) { AddInTheMiddle<float>(GetParam()); }
TEST_P(AddedTest, Float64) { AddInTheMiddle<double>(GetParam()); }
INSTANTIATE_TEST_SUITE_P(All, AddedTest, testing::Values("sgd_added", "adam_added", "adamw_added"));

class LoadedTest : public testing::TestWithParam<const char*> {};
TEST_P(LoadedTest, Float32) { LoadInTheMiddle<float>(GetParam()); }
TEST_P(LoadedTest, Float64) { LoadInTheMiddle<double>(GetParam()); }
INSTANTIATE_TEST_SUITE_P(All, LoadedTest,
                         testing::Values("sgd_nesterov", "adam_amsgrad", "adamw", "adagrad",
                                         "rmsprop", "adadelta", "nadam", "radam", "adamax", "rprop",
                                         "asgd_t0"));

class ServersTest : public testing::TestWithParam<const char*> {};
TEST_P(ServersTest, Float32) { RunOnServers<float>(GetParam()); }
TEST_P(ServersTest, Float64) { RunOnServers<double>(GetParam()); }
INSTANTIATE_TEST_SUITE_P(All, ServersTest,
                         testing::Values("sgd_changed", "adam_changed", "adamw_changed", "adagrad",
                                         "rmsprop", "adadelta", "nadam", "radam", "adamax", "rprop",
                                         "asgd", "asgd_t0"));

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  shardstep::UsePortableNumerics();
  at::set_num_threads(1);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
