// Gradients that consist of rows, on one to three servers, cut by rows, columns and both, loaded in
// the middle, against PyTorch: every bit of every parameter and state. In the cases named line_...
// parameters have one dimension for PyTorch, too.

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ATen/Parallel.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/client/client.h"
#include "shardstep/optim/numeric_fingerprint.h"
#include "shardstep/optim/options/option_checks.h"
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

// How a parameter is cut over the servers.
enum class Cut { kPlanned, kRows, kColumns, kGrid };

std::optional<ShardingSpec> SpecOf(Cut cut, const Shape& sizes, int servers) {
  Chunk chunk = Rows(servers);
  switch (cut) {
    case Cut::kPlanned:
      return std::nullopt;
    case Cut::kRows:
      return chunk;
    case Cut::kColumns:
      chunk.dim = sizes.size() > 1 ? 1 : 0;
      return chunk;
    case Cut::kGrid: {
      std::vector<int64_t> grid(sizes.size(), 1);
      grid[0] = 2;
      if (sizes.size() > 1 && sizes[1] > 1) grid[1] = 2;
      std::vector<Placement> placements;
      const int64_t blocks = grid.size() > 1 ? grid[0] * grid[1] : grid[0];
      for (int64_t i = 0; i < blocks; ++i) placements.push_back({static_cast<int>(i % servers)});
      return Grid(sizes, grid, placements).value();
    }
  }
  return std::nullopt;
}

// The numbers that generate_rows.py draws.
std::vector<int64_t> DrawRows(int step, size_t index, int64_t rows) {
  uint64_t state = 1000000 + 1000 * step + index;
  const auto next = [&state] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 33;
  };
  std::vector<int64_t> numbers(next() % (rows + 3));
  for (int64_t& number : numbers) number = static_cast<int64_t>(next() % rows);
  return numbers;
}

template <typename T>
class Run {
 public:
  Run(const GoldenCase& golden, MiniFleet* fleet, Cut cut)
      : golden_(golden), fleet_(fleet), cut_(cut) {}

  absl::Status Create() {
    SHARDSTEP_ASSIGN_OR_RETURN(Client client, Client::Connect(fleet_->fleet_file()));
    std::vector<ParameterGroup> groups;
    for (const ParamGroup& golden : golden_.groups) {
      ParameterGroup& group = groups.emplace_back();
      group.options = golden.options;
      for (size_t i = 0; i < golden_.parameters.size(); ++i) {
        const GoldenParameter& parameter = golden_.parameters[i];
        const auto& names = golden.params;
        if (std::find(names.begin(), names.end(), parameter.name) == names.end()) continue;
        const Shape sizes(parameter.shape.begin(), parameter.shape.end());
        values_.Add(parameter.name, sizes, 0, SpecOf(cut_, sizes, fleet_->options().servers));
        const at::Tensor drawn = DrawGradient(0, i, parameter.shape, kScalarType<T>);
        std::memcpy(values_[parameter.name].data(), drawn.data_ptr(), drawn.nbytes());
        group.parameters.push_back(values_.named().back());
      }
    }
    SHARDSTEP_ASSIGN_OR_RETURN(
        ShardedOptimizer optimizer,
        client.CreateOptimizer("m", groups, OptimizerOptions{golden_.kind, golden_.defaults},
                               Synchronous(1), 0));
    optimizer_ = std::make_unique<ShardedOptimizer>(std::move(optimizer));
    return absl::OkStatus();
  }

  absl::Status Step(int step) {
    for (const GoldenChange& change : golden_.changes) {
      if (change.step != step) continue;
      for (const auto& [name, value] : change.options) {
        SHARDSTEP_RETURN_IF_ERROR(
            optimizer_->SetOption(static_cast<int>(change.group), name, value));
      }
    }
    SHARDSTEP_ASSIGN_OR_RETURN(GradientPush push, optimizer_->StartPush());
    for (size_t i = 0; i < golden_.parameters.size(); ++i) {
      const GoldenParameter& parameter = golden_.parameters[i];
      if (parameter.absent_steps.count(step) > 0) continue;
      const std::vector<int64_t> rows = DrawRows(step, i, parameter.shape[0]);
      std::vector<int64_t> sizes = parameter.shape;
      sizes[0] = static_cast<int64_t>(rows.size());
      const auto drawn =
          std::make_shared<const at::Tensor>(DrawGradient(step, i, sizes, kScalarType<T>));
      const auto* const data = static_cast<const T*>(drawn->const_data_ptr());
      SHARDSTEP_RETURN_IF_ERROR(
          push.AddRows(parameter.name, {rows, MakeTensorView(data, sizes)}, drawn));
    }
    SHARDSTEP_RETURN_IF_ERROR(push.Finish());
    return optimizer_->Step().status();
  }

  // Compares everything with PyTorch's numbers after `step`, if the golden file has them.
  void Compare(int step) {
    if (golden_.kept.count(step) == 0) return;
    ASSERT_OK_AND_ASSIGN(const StateDict dict, optimizer_->state_dict());
    const std::string prefix = absl::StrCat(sizeof(T) == 4 ? "float32/" : "float64/", step, "/");
    size_t compared = 0;
    for (const auto& [key, tensor] : golden_.tensors) {
      if (key.compare(0, prefix.size(), prefix) != 0) continue;
      ++compared;
      const size_t slash = key.rfind('/');
      const std::string name = key.substr(prefix.size(), slash - prefix.size());
      const std::string what = key.substr(slash + 1);
      if (what == "value") {
        ASSERT_TRUE(Same(tensor, dict.parameters.at(name))) << key;
        continue;
      }
      ASSERT_TRUE(dict.state.count(name) > 0 && dict.state.at(name).count(what) > 0) << key;
      const StateValue& value = dict.state.at(name).at(what);
      if (const double* scalar = std::get_if<double>(&value)) {
        ASSERT_EQ(*scalar, NumberOf(tensor)) << key;
      } else {
        ASSERT_TRUE(Same(tensor, std::get<HostTensor>(value))) << key;
      }
    }
    size_t read = dict.parameters.size();
    for (const auto& [name, states] : dict.state) read += states.size();
    EXPECT_EQ(read, compared);
  }

  ShardedOptimizer& optimizer() { return *optimizer_; }

 private:
  static bool Same(const at::Tensor& expected, const HostTensor& actual) {
    return expected.nbytes() == actual.bytes.size() &&
           std::memcmp(expected.const_data_ptr(), actual.bytes.data(), actual.bytes.size()) == 0;
  }

  const GoldenCase& golden_;
  MiniFleet* const fleet_;
  const Cut cut_;
  TensorSet<T> values_;
  std::unique_ptr<ShardedOptimizer> optimizer_;
};

std::unique_ptr<MiniFleet> Servers(int servers) {
  MiniFleetOptions options;
  options.servers = servers;
  return MakeInProcessFleet(options);
}

template <typename T>
void RunOnServers(const std::string& name) {
  const GoldenCase golden = ReadGoldenCase("rows/" + name);
  const std::pair<int, Cut> setups[] = {
      {1, Cut::kPlanned}, {2, Cut::kRows}, {3, Cut::kColumns}, {3, Cut::kGrid}};
  for (const auto& [servers, cut] : setups) {
    SCOPED_TRACE(absl::StrCat(servers, " servers, cut ", static_cast<int>(cut)));
    const auto fleet = Servers(servers);
    ASSERT_OK(fleet->Start());
    Run<T> run(golden, fleet.get(), cut);
    ASSERT_OK(run.Create());
    run.Compare(0);
    for (int step = 1; step <= golden.steps; ++step) {
      ASSERT_OK(run.Step(step)) << step;
      ASSERT_NO_FATAL_FAILURE(run.Compare(step)) << step;
    }
  }
}

// Ten steps on three servers; their state_dict goes on on two, cut in another way.
template <typename T>
void LoadInTheMiddle(const std::string& name) {
  const GoldenCase golden = ReadGoldenCase("rows/" + name);
  const auto first_fleet = Servers(3);
  ASSERT_OK(first_fleet->Start());
  Run<T> first(golden, first_fleet.get(), Cut::kColumns);
  ASSERT_OK(first.Create());
  for (int step = 1; step <= 10; ++step) ASSERT_OK(first.Step(step)) << step;
  ASSERT_OK_AND_ASSIGN(const StateDict dict, first.optimizer().state_dict());
  const auto second_fleet = Servers(2);
  ASSERT_OK(second_fleet->Start());
  Run<T> second(golden, second_fleet.get(), Cut::kRows);
  ASSERT_OK(second.Create());
  ASSERT_OK(second.Step(17));  // wrong numbers, all of which the load replaces
  ASSERT_OK(second.optimizer().LoadStateDict(dict));
  second.Compare(10);
  for (int step = 11; step <= golden.steps; ++step) ASSERT_OK(second.Step(step)) << step;
  second.Compare(golden.steps);
}

class RowGoldenTest : public testing::TestWithParam<std::string> {};
TEST_P(RowGoldenTest, Float32) { RunOnServers<float>(GetParam()); }
TEST_P(RowGoldenTest, Float64) { RunOnServers<double>(GetParam()); }
TEST_P(RowGoldenTest, Float32LoadedInTheMiddle) { LoadInTheMiddle<float>(GetParam()); }
TEST_P(RowGoldenTest, GroupsAreCompletedAsByPyTorch) {
  const GoldenCase golden = ReadGoldenCase("rows/" + GetParam());
  ASSERT_OK_AND_ASSIGN(const OptionMap defaults, CompleteOptions(golden.kind, golden.defaults));
  for (size_t i = 0; i < golden.groups.size(); ++i) {
    ASSERT_OK_AND_ASSIGN(const ParamGroup group,
                         CompleteGroup(golden.kind, defaults, golden.groups[i]));
    EXPECT_EQ(group, golden.param_groups[i]);
  }
}
INSTANTIATE_TEST_SUITE_P(
    All, RowGoldenTest,
    testing::ValuesIn(ReadGoldenJson("rows/cases.json").get<std::vector<std::string>>()),
    [](const auto& info) { return info.param; });

}  // namespace
}  // namespace shardstep

int main(int argc, char** argv) {
  shardstep::UsePortableNumerics();
  at::set_num_threads(1);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
