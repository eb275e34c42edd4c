// States per row, column, matrix and tensor, moved between shardings of all kinds.

#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/checkpoint/simulated_file_system.h"
#include "shardstep/client/fake_fleet.h"
#include "shardstep/sharding/extent.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/test_seed.h"
#include "shardstep/tests/state_servers.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::vector<StateSpec>& States() {
  static const auto* const states = new std::vector<StateSpec>{
      StateSpec::Scalar("step"),
      StateSpec::Tensor("row_var", Extent::kRow),
      StateSpec::Tensor("col_var", Extent::kColumn),
      StateSpec::Tensor("per_matrix", Extent::kMatrix),
      StateSpec::Tensor("in_all", Extent::kTensor),
      StateSpec::Tensor("variance"),
  };
  return *states;
}

std::vector<ParameterShape> Parameters() {
  return {{"matrix", DType::kFloat32, {6, 5}, std::nullopt},
          {"stack", DType::kFloat64, {2, 4, 3}, std::nullopt},
          {"vector", DType::kFloat32, {7}, std::nullopt},
          {"number", DType::kFloat32, {}, std::nullopt},
          {"nothing", DType::kFloat32, {3, 0}, std::nullopt}};
}

HostTensor RandomTensor(DType dtype, const Shape& sizes, std::mt19937* random) {
  HostTensor tensor{dtype, sizes, std::vector<char>(NumBytes(sizes, dtype).value())};
  for (char& byte : tensor.bytes) byte = static_cast<char>((*random)());
  return tensor;
}

StateDict RandomDict(std::mt19937* random) {
  StateDict dict;
  for (const ParameterShape& parameter : Parameters()) {
    dict.parameters[parameter.name] = RandomTensor(parameter.dtype, parameter.sizes, random);
    for (const StateSpec& state : States()) {
      if (state.kind == StateSpec::Kind::kScalar) {
        dict.state[parameter.name][state.name] = static_cast<double>((*random)() % 100);
        continue;
      }
      dict.state[parameter.name][state.name] =
          RandomTensor(parameter.dtype, ExtentSizes(state.extent, parameter.sizes), random);
    }
  }
  return dict;
}

// Cuts `region` once and once more, where chance says, and gives each part to some server. Rows
// may be cut elsewhere on the left than on the right, and parts may be empty.
void Cut(const Region& region, int cuts, int servers, std::mt19937* random,
         std::vector<ShardMetadata>* shards) {
  if (cuts == 0 || region.sizes.empty()) {
    shards->push_back({ToShape(region.offsets),
                       ToShape(region.sizes),
                       {static_cast<int>((*random)() % servers)}});
    return;
  }
  const size_t dim = (*random)() % region.sizes.size();
  const int64_t at = (*random)() % (region.sizes[dim] + 1);
  Region first = region;
  Region second = region;
  first.sizes[dim] = at;
  second.offsets[dim] += at;
  second.sizes[dim] -= at;
  const int left = (*random)() % cuts;
  Cut(first, left, servers, random, shards);
  Cut(second, cuts - 1 - left, servers, random, shards);
}

OptimizerDescription RandomSharding(int servers, std::mt19937* random) {
  std::vector<ParameterShape> parameters = Parameters();
  for (ParameterShape& parameter : parameters) {
    Enumerable spec;
    Cut(internal::WholeRegion(parameter.sizes), (*random)() % 7, servers, random, &spec.shards);
    parameter.spec = std::move(spec);
  }
  OptimizerDescription description = internal::Describe(std::move(parameters), servers);
  description.states = States();
  return description;
}

// The bytes of `part` of a tensor.
std::vector<char> PartOf(const HostTensor& tensor, const Region& part) {
  const int64_t item = ItemSize(tensor.dtype);
  std::vector<char> bytes(NumBytes(part.sizes, tensor.dtype).value());
  ForEachRun(part, internal::WholeRegion(tensor.sizes), part,
             [&](int64_t from, int64_t to, int64_t count) {
               std::memcpy(&bytes[to * item], &tensor.bytes[from * item], count * item);
             });
  return bytes;
}

void ExpectSame(const StateDict& a, const StateDict& b) {
  ASSERT_EQ(a.parameters.size(), b.parameters.size());
  for (const auto& [name, value] : a.parameters) {
    EXPECT_EQ(value.bytes, b.parameters.at(name).bytes) << name;
  }
  ASSERT_EQ(a.state.size(), b.state.size());
  for (const auto& [name, states] : a.state) {
    ASSERT_EQ(states.size(), b.state.at(name).size()) << name;
    for (const auto& [state, value] : states) {
      SCOPED_TRACE(absl::StrCat(name, ".", state));
      const StateValue& other = b.state.at(name).at(state);
      ASSERT_EQ(value.index(), other.index());
      if (const double* const number = std::get_if<double>(&value)) {
        EXPECT_EQ(*number, std::get<double>(other));
        continue;
      }
      EXPECT_EQ(std::get<HostTensor>(value).sizes, std::get<HostTensor>(other).sizes);
      EXPECT_EQ(std::get<HostTensor>(value).bytes, std::get<HostTensor>(other).bytes);
    }
  }
}

// Every shard has its own part of every state, whether it is the one that others read or not.
void ExpectHeld(const StateServers& fleet, int servers, const StateDict& dict) {
  for (int server = 0; server < servers; ++server) {
    const HeldVersion& held = fleet.held(server);
    for (size_t local = 0; local < held.state.shards.size(); ++local) {
      const LocalShardInfo& shard = held.layout->local[local];
      const std::string& name = held.layout->parameters[shard.parameter].name;
      ASSERT_EQ(held.state.shards[local].states.size(), States().size() - 1);
      for (const TensorState& state : held.state.shards[local].states) {
        SCOPED_TRACE(absl::StrCat(name, ".", state.name, ", shard ", shard.shard));
        const Region part = held.layout->TensorRegion(local, held.layout->FindState(state.name));
        const char* const data = static_cast<const char*>(state.tensor.data_ptr());
        EXPECT_EQ(std::vector<char>(data, data + state.tensor.nbytes()),
                  PartOf(std::get<HostTensor>(dict.state.at(name).at(state.name)), part));
      }
    }
  }
}

TEST(StateExtentsTest, SurviveEveryWayToAnotherSharding) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 40; ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round));
    SimulatedFileSystem files;
    const StateDict dict = RandomDict(&random);
    StateServers one(RandomSharding(1, &random), 1, &files);
    StateServers three(RandomSharding(3, &random), 3, &files);
    StateServers two(RandomSharding(2, &random), 2, &files);
    ASSERT_OK(one.Load(dict));
    ExpectHeld(one, 1, dict);
    ASSERT_OK_AND_ASSIGN(const StateDict of_one, one.Read());
    ExpectSame(dict, of_one);

    ASSERT_OK(one.Save("a"));
    ASSERT_OK(three.Restore("a"));
    ExpectHeld(three, 3, dict);
    ASSERT_OK(three.PassThroughBases());
    ExpectHeld(three, 3, dict);
    ASSERT_OK_AND_ASSIGN(const StateDict of_three, three.Read());
    ExpectSame(dict, of_three);

    ASSERT_OK(two.Load(of_three));
    ExpectHeld(two, 2, dict);
    ASSERT_OK(two.Save("b"));
    ASSERT_OK(one.Restore("b"));
    ExpectHeld(one, 1, dict);
    if (HasFailure()) return;
  }
}

TEST(StateExtentsTest, ABlockIsOfTheStateWhereOneIsNamedAndOfTheParameterElse) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  std::mt19937 random(seed);
  SimulatedFileSystem files;
  const StateDict dict = RandomDict(&random);
  StateServers fleet(RandomSharding(3, &random), 3, &files);
  ASSERT_OK(fleet.Load(dict));
  const auto state = [&](const StateDict& of, const std::string& name) {
    return std::get<HostTensor>(of.state.at("matrix").at(name));
  };
  StateDictOptions options;
  options.parts = {{"matrix", "", Region{{2, 1}, {3, 4}}}};
  ASSERT_OK_AND_ASSIGN(const StateDict block, fleet.Read(options));
  EXPECT_EQ(block.parameters.at("matrix").bytes,
            PartOf(dict.parameters.at("matrix"), {{2, 1}, {3, 4}}));
  EXPECT_EQ(state(block, "variance").bytes, PartOf(state(dict, "variance"), {{2, 1}, {3, 4}}));
  EXPECT_EQ(state(block, "row_var").bytes, PartOf(state(dict, "row_var"), {{2, 0}, {3, 1}}));
  EXPECT_EQ(state(block, "col_var").bytes, PartOf(state(dict, "col_var"), {{0, 1}, {1, 4}}));
  EXPECT_EQ(state(block, "in_all").bytes, state(dict, "in_all").bytes);

  options.parts = {{"matrix", "row_var", Region{{1, 0}, {4, 1}}},
                   {"stack", "col_var", std::nullopt}};
  ASSERT_OK_AND_ASSIGN(const StateDict named, fleet.Read(options));
  EXPECT_EQ(state(named, "row_var").bytes, PartOf(state(dict, "row_var"), {{1, 0}, {4, 1}}));
  EXPECT_EQ(std::get<HostTensor>(named.state.at("stack").at("col_var")).sizes, (Shape{2, 1, 3}));

  options.parts = {{"matrix", "row_var", Region{{1, 0}, {4, 2}}}};
  EXPECT_THAT(fleet.Read(options),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("parameter \"matrix\", state \"row_var\": block at [1,0] of [4,2] "
                                 "does not fit its shape [6,1]")));
}

// A state of the same name in an optimizer of another kind.
TEST(StateExtentsTest, AStoredStateOfAnotherShapeIsRefused) {
  std::mt19937 random(1);
  SimulatedFileSystem files;
  OptimizerDescription description = RandomSharding(2, &random);
  StateServers fleet(description, 2, &files);
  ASSERT_OK(fleet.Load(RandomDict(&random)));
  ASSERT_OK(fleet.Save("a"));
  description.states[5].extent = Extent::kRow;
  StateServers other(description, 2, &files);
  EXPECT_THAT(other.Restore("a"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr(".variance\" is float"), HasSubstr(", expected float"))));
}

}  // namespace
}  // namespace shardstep
