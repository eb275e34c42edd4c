// Optimizer state before the first gradient, in added groups and from a load.

#include <string>
#include <variant>
#include <vector>

#include "shardstep/tests/conformance.h"

namespace shardstep {
namespace {

using ::testing::Each;

std::vector<float> StateOf(const StateDict& dict, const std::string& parameter,
                           const std::string& state) {
  const auto& tensor = std::get<HostTensor>(dict.state.at(parameter).at(state));
  const auto* const values = reinterpret_cast<const float*>(tensor.bytes.data());
  return std::vector<float>(values, values + tensor.bytes.size() / sizeof(float));
}

double StepOf(const StateDict& dict, const std::string& parameter) {
  return std::get<double>(dict.state.at(parameter).at("step"));
}

TEST_P(ConformanceTest, AdagradsStateIsThereBeforeAnyGradientAndInAddedGroups) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer optimizer,
                       Create(AdagradOptions(1.0).initial_accumulator_value(0.5)));
  ASSERT_OK_AND_ASSIGN(const StateDict created, optimizer.state());
  EXPECT_THAT(StateOf(created, "a", "sum"), Each(0.5f));
  EXPECT_THAT(StateOf(created, "b", "sum"), Each(0.5f));
  EXPECT_EQ(StepOf(created, "a"), 0);

  Floats only_b;
  only_b.Add("b", {5}, 2);
  ASSERT_OK(PushAndStep(optimizer, only_b));
  Floats added;
  added.Add("c", {4}, 0, Rows(kServers));
  ParameterGroup group;
  group.parameters = added.named();
  group.options = {{"initial_accumulator_value", 0.25}};
  ASSERT_OK(optimizer.AddParamGroup(group));
  ASSERT_OK_AND_ASSIGN(const StateDict grown, optimizer.state());
  EXPECT_THAT(StateOf(grown, "a", "sum"), Each(0.5f));
  EXPECT_EQ(StepOf(grown, "a"), 0);
  EXPECT_THAT(StateOf(grown, "b", "sum"), Each(4.5f));
  EXPECT_EQ(StepOf(grown, "b"), 1);
  EXPECT_THAT(StateOf(grown, "c", "sum"), Each(0.25f));
  EXPECT_EQ(StepOf(grown, "c"), 0);
}

TEST_P(ConformanceTest, ALoadedLrOverridesTheConstructors) {
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer saved, Create(SGDOptions(1.0)));
  ASSERT_OK_AND_ASSIGN(const StateDict dict, saved.state_dict());
  ASSERT_OK_AND_ASSIGN(ShardedOptimizer loaded,
                       client_->CreateOptimizer(Name() + "-8", Parameters().named(),
                                                SGDOptions(8.0), Synchronous(1), 0));
  ASSERT_OK(loaded.LoadStateDict(dict));
  ASSERT_OK(PushAndStep(loaded, Parameters().Like(1)));
  ExpectValues(loaded, -1, -1);
}

}  // namespace
}  // namespace shardstep
