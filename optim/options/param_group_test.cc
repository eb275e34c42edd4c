#include "shardstep/optim/options/param_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

TEST(CompleteGroupTest, TakesWhatItLacksFromTheDefaults) {
  ASSERT_OK_AND_ASSIGN(const OptionMap defaults, CompleteOptions("SGD", {{"momentum", 0.9}}));
  ASSERT_OK_AND_ASSIGN(
      const ParamGroup group,
      CompleteGroup("SGD", defaults, {{{"lr", 0.5}, {"initial_lr", 0.25}}, {"w", "b"}}));
  std::string text;
  for (const auto& [name, value] : group.options) {
    absl::StrAppend(&text, name, "=", value.ToString(), " ");
  }
  EXPECT_EQ(text,
            "lr=0.5 initial_lr=0.25 momentum=0.9 dampening=0 weight_decay=0 nesterov=False "
            "maximize=False foreach=None differentiable=False fused=None ");
  EXPECT_THAT(group.params, testing::ElementsAre("w", "b"));
}

// State dicts that PyTorch wrote when AdamW was no Adam lack the flag.
TEST(CompleteGroupTest, AnAdamWGroupWithoutTheDecoupledFlagIsDecoupled) {
  ASSERT_OK_AND_ASSIGN(const OptionMap defaults, CompleteOptions("AdamW", {}));
  ASSERT_OK_AND_ASSIGN(
      const ParamGroup group,
      CompleteGroup("AdamW", defaults, {{{"lr", 0.5}, {"weight_decay", 0.1}}, {}}));
  EXPECT_TRUE(group.options.IsTrue("decoupled_weight_decay"));
}

TEST(CompleteGroupTest, ChecksValues) {
  ASSERT_OK_AND_ASSIGN(const OptionMap defaults, CompleteOptions("Adam", {}));
  EXPECT_THAT(CompleteGroup("Adam", defaults, {{{"lr", -1.5}}, {"w"}}),
              StatusIs(absl::StatusCode::kInvalidArgument, "Invalid learning rate: -1.5"));
}

TEST(CheckGroupsTest, NamesOncePerOptimizer) {
  EXPECT_OK(CheckGroups({{{}, {"a", "b"}}, {{}, {}}, {{}, {"c"}}}));
  EXPECT_THAT(CheckGroups({}), StatusIs(absl::StatusCode::kInvalidArgument,
                                        "optimizer got an empty parameter list"));
  EXPECT_THAT(CheckGroups({{{}, {"a", "b"}}, {{}, {"c", "b"}}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "some parameters appear in more than one parameter group"));
  EXPECT_THAT(CheckGroups({{{}, {"a", "b", "a"}}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "parameter \"a\": stands twice in one parameter group"));
}

}  // namespace
}  // namespace shardstep
