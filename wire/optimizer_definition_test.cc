#include "shardstep/wire/optimizer_definition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "shardstep/optim/options/option_value.h"
#include "shardstep/sharding/dtype.h"
#include "shardstep/sharding/sharding_spec.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

OptimizerDefinition Digits() {
  OptimizerDefinition definition;
  definition.name = "digits";
  definition.kind = "SGD";
  definition.defaults = {{"lr", 0.1}, {"momentum", 0.0}};
  definition.groups = {{{{"lr", 0.1}, {"momentum", 0.0}}, {"fc1.weight", "fc1.bias"}},
                       {{{"lr", 0.5}, {"momentum", 0.0}}, {"fc2.weight"}}};
  definition.parameters = {{"fc1.weight", DType::kFloat32, {128, 64}, {}},
                           {"fc1.bias", DType::kFloat32, {128}, {}},
                           {"fc2.weight", DType::kFloat32, {10, 128}, {}}};
  definition.sharded = {false, false, false};
  definition.mode = Synchronous(2);
  return definition;
}

TEST(FirstDifferenceTest, EqualDefinitions) { EXPECT_OK(FirstDifference(Digits(), Digits())); }

TEST(FirstDifferenceTest, ShardingSpecsAndTheOrderOfOptionsDoNotCount) {
  OptimizerDefinition proposed = Digits();
  proposed.parameters[0].spec = Whole{1, "cpu"};
  proposed.defaults = {{"momentum", 0}, {"lr", 0.1}};
  EXPECT_OK(FirstDifference(Digits(), proposed));
}

TEST(FirstDifferenceTest, NamesTheFirst) {
  const struct {
    std::function<void(OptimizerDefinition*)> change;
    const char* difference;
  } cases[] = {
      {[](auto* d) {
         d->parameters[2].sizes = {10, 64};
       },
       "parameter 2 \"fc2.weight\": shape [10,128], got [10,64]"},
      {[](auto* d) { d->parameters[1].name = "fc1.b"; }, "parameter 1 \"fc1.bias\": got \"fc1.b\""},
      {[](auto* d) { d->parameters[0].dtype = DType::kFloat64; },
       "parameter 0 \"fc1.weight\": dtype float32, got float64"},
      {[](auto* d) { d->sharded[1] = true; },
       "parameter 1 \"fc1.bias\": whole tensor, got sharded tensor"},
      {[](auto* d) {
         d->parameters.push_back({"fc2.bias", DType::kFloat32, {10}, {}});
         d->sharded.push_back(false);
       },
       "3 parameters, got 4 (also \"fc2.bias\")"},
      {[](auto* d) { d->parameters.pop_back(); }, "3 parameters, got 2 (without \"fc2.weight\")"},
      {[](auto* d) { d->groups[0].params[1] = "fc2.weight"; },
       "group 0: parameter 1 \"fc1.bias\", got \"fc2.weight\""},
      {[](auto* d) { d->groups[0].params.pop_back(); }, "group 0: 2 parameters, got 1"},
      {[](auto* d) { d->groups.pop_back(); }, "2 groups, got 1"},
      {[](auto* d) { d->kind = "AdamW"; }, "kind SGD, got AdamW"},
      {[](auto* d) { d->defaults.Set("lr", 0.2); }, "defaults: option \"lr\" 0.1, got 0.2"},
      {[](auto* d) { d->defaults.Set("x", true); }, "defaults: option \"x\" absent, got True"},
      {[](auto* d) {
         d->groups[1].options = {{"lr", 0.5}};
       },
       "group 1: option \"momentum\" 0.0, got absent"},
      {[](auto* d) { d->mode = Synchronous(1); },
       "mode synchronous with 2 trainers, got synchronous with 1 trainer"},
      {[](auto* d) { d->mode = Asynchronous(8); },
       "mode synchronous with 2 trainers, got asynchronous with max_staleness 8"},
      // Several: the first counts.
      {[](auto* d) {
         d->mode = Asynchronous(8);
         d->kind = "Adam";
         d->groups.pop_back();
         d->parameters[1].sizes = {};
       },
       "parameter 1 \"fc1.bias\": shape [128], got []"},
  };
  for (const auto& c : cases) {
    OptimizerDefinition proposed = Digits();
    c.change(&proposed);
    const absl::Status status = FirstDifference(Digits(), proposed);
    EXPECT_THAT(status,
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         std::string("optimizer \"digits\" exists with a different definition: ") +
                             c.difference));
    EXPECT_EQ(ReasonOf(status), v1::DEFINITION_DIFFERS);
    EXPECT_EQ(ErrorDetailOf(status)->optimizer(), "digits");
  }
}

TEST(ValidateOptimizerNameTest, TakesWhatIsSafeInPathsAndTables) {
  for (const std::string& name :
       {std::string("digits"), std::string("a.b_c-9"), std::string("-"), std::string(128, 'x')}) {
    EXPECT_OK(ValidateOptimizerName(name));
  }
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".hidden"), std::string(".."),
        std::string("a/b"), std::string("a b"), std::string("a\n"), std::string("\xC3\xA9"),
        std::string("a\0b", 3), std::string(129, 'x')}) {
    EXPECT_THAT(ValidateOptimizerName(name), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  EXPECT_THAT(ValidateOptimizerName("a\n"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "optimizer name \"a\\n\": expected 1 to 128 letters, digits, dots, "
                       "underscores and hyphens, not beginning with a dot"));
}

}  // namespace
}  // namespace shardstep
