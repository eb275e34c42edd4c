#include "shardstep/optim/options/option_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/optim/options/optimizer_options.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::string ToText(const OptionMap& map) {
  std::string text;
  for (const auto& [name, value] : map) absl::StrAppend(&text, name, "=", value.ToString(), " ");
  return text;
}

TEST(CompleteOptionsTest, GivesPyTorchsDefaultsInItsOrder) {
  ASSERT_OK_AND_ASSIGN(const OptionMap sgd, CompleteOptions("SGD", {}));
  EXPECT_EQ(ToText(sgd),
            "lr=0.001 momentum=0 dampening=0 weight_decay=0 nesterov=False maximize=False "
            "foreach=None differentiable=False fused=None ");
  ASSERT_OK_AND_ASSIGN(const OptionMap adam, CompleteOptions("Adam", {}));
  EXPECT_EQ(ToText(adam),
            "lr=0.001 betas=(0.9, 0.999) eps=1e-08 weight_decay=0 amsgrad=False maximize=False "
            "foreach=None capturable=False differentiable=False fused=None "
            "decoupled_weight_decay=False ");
  ASSERT_OK_AND_ASSIGN(const OptionMap adamw, CompleteOptions("AdamW", {}));
  EXPECT_EQ(ToText(adamw),
            "lr=0.001 betas=(0.9, 0.999) eps=1e-08 weight_decay=0.01 amsgrad=False maximize=False "
            "foreach=None capturable=False differentiable=False fused=None "
            "decoupled_weight_decay=True ");
}

TEST(CompleteOptionsTest, TakesWhatIsGiven) {
  ASSERT_OK_AND_ASSIGN(const OptionMap full,
                       CompleteOptions("SGD", {{"fused", true}, {"lr", 1}, {"foreach", false}}));
  EXPECT_EQ(ToText(full),
            "lr=1 momentum=0 dampening=0 weight_decay=0 nesterov=False maximize=False "
            "foreach=False differentiable=False fused=True ");
}

TEST(CompleteOptionsTest, TakesTheBuilders) {
  const OptimizerOptions sgd =
      SGDOptions(0.1).momentum(0.9).dampening(0).weight_decay(0.01).nesterov(true).maximize(true);
  EXPECT_EQ(sgd.kind, "SGD");
  ASSERT_OK_AND_ASSIGN(const OptionMap sgd_full, CompleteOptions(sgd.kind, sgd.given));
  EXPECT_EQ(ToText(sgd_full),
            "lr=0.1 momentum=0.9 dampening=0.0 weight_decay=0.01 nesterov=True maximize=True "
            "foreach=None differentiable=False fused=None ");

  const OptimizerOptions adam = AdamOptions(0.2)
                                    .betas(0.5, 0.75)
                                    .eps(1e-6)
                                    .weight_decay(0.1)
                                    .amsgrad(true)
                                    .maximize(true)
                                    .decoupled_weight_decay(true);
  EXPECT_EQ(adam.kind, "Adam");
  ASSERT_OK_AND_ASSIGN(const OptionMap adam_full, CompleteOptions(adam.kind, adam.given));
  EXPECT_EQ(ToText(adam_full),
            "lr=0.2 betas=(0.5, 0.75) eps=1e-06 weight_decay=0.1 amsgrad=True maximize=True "
            "foreach=None capturable=False differentiable=False fused=None "
            "decoupled_weight_decay=True ");

  const OptimizerOptions adamw = AdamWOptions().betas({0.1, 0.2});
  EXPECT_EQ(adamw.kind, "AdamW");
  ASSERT_OK_AND_ASSIGN(const OptionMap adamw_full, CompleteOptions(adamw.kind, adamw.given));
  EXPECT_EQ(adamw_full.Find("betas")->ToString(), "(0.1, 0.2)");
}

struct Refusal {
  std::string kind;
  OptionMap given;
  std::string message;
};

void PrintTo(const Refusal& refusal, std::ostream* os) {
  *os << refusal.kind << " " << ToText(refusal.given);
}

class RefusalTest : public testing::TestWithParam<Refusal> {};

TEST_P(RefusalTest, HasPyTorchsWords) {
  EXPECT_THAT(CompleteOptions(GetParam().kind, GetParam().given),
              StatusIs(absl::StatusCode::kInvalidArgument, GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Sgd, RefusalTest,
    testing::Values(
        Refusal{"SGD", {{"foo", 1}}, "SGD.__init__() got an unexpected keyword argument 'foo'"},
        Refusal{"SGD", {{"eps", 1}}, "SGD.__init__() got an unexpected keyword argument 'eps'"},
        Refusal{"SGD", {{"lr", -0.1}}, "Invalid learning rate: -0.1"},
        Refusal{"SGD", {{"lr", -1}}, "Invalid learning rate: -1"},
        Refusal{"SGD", {{"momentum", -0.5}}, "Invalid momentum value: -0.5"},
        Refusal{"SGD", {{"weight_decay", -1e-8}}, "Invalid weight_decay value: -1e-08"},
        Refusal{"SGD",
                {{"nesterov", true}},
                "Nesterov momentum requires a momentum and zero dampening"},
        Refusal{"SGD",
                {{"nesterov", true}, {"momentum", 0.9}, {"dampening", 0.1}},
                "Nesterov momentum requires a momentum and zero dampening"},
        Refusal{"SGD", {{"lr", "fast"}}, "option \"lr\": expected a number, got 'fast'"},
        Refusal{"SGD", {{"dampening", {}}}, "option \"dampening\": expected a number, got None"},
        Refusal{"SGD",
                {{"fused", true}, {"differentiable", true}},
                "`fused` does not support `differentiable`"},
        Refusal{"SGD",
                {{"fused", true}, {"foreach", true}},
                "`fused` and `foreach` cannot be `True` together."}));

INSTANTIATE_TEST_SUITE_P(
    Adam, RefusalTest,
    testing::Values(
        Refusal{"Adam", {{"foo", 1}}, "Adam.__init__() got an unexpected keyword argument 'foo'"},
        Refusal{"AdamW",
                {{"decoupled_weight_decay", true}},
                "AdamW.__init__() got an unexpected keyword argument 'decoupled_weight_decay'"},
        Refusal{"Adam", {{"lr", -0.1}}, "Invalid learning rate: -0.1"},
        Refusal{"Adam", {{"lr", kNan}}, "Invalid learning rate: nan"},
        Refusal{"AdamW", {{"eps", -1e-8}}, "Invalid epsilon value: -1e-08"},
        Refusal{"Adam",
                {{"betas", OptionValue::List{1.0, 0.9}}},
                "Invalid beta parameter at index 0: 1.0"},
        Refusal{"Adam",
                {{"betas", OptionValue::List{0.0, -0.5}}},
                "Invalid beta parameter at index 1: -0.5"},
        Refusal{"Adam",
                {{"betas", OptionValue::List{0, 0.9}}},
                "betas must be either both floats or both Tensors"},
        Refusal{"Adam", {{"weight_decay", -1}}, "Invalid weight_decay value: -1"},
        Refusal{"Adam",
                {{"betas", OptionValue::List{0.9}}},
                "option \"betas\": expected two numbers, got (0.9,)"},
        Refusal{"Adam", {{"betas", 0.9}}, "option \"betas\": expected two numbers, got 0.9"},
        Refusal{"Adam", {{"eps", {}}}, "option \"eps\": expected a number, got None"},
        Refusal{"AdamW",
                {{"fused", true}, {"foreach", true}},
                "`fused` and `foreach` cannot be `True` together."}));

INSTANTIATE_TEST_SUITE_P(
    Kinds, RefusalTest,
    testing::Values(Refusal{
        "LBFGS", {}, "unknown optimizer \"LBFGS\": expected one of SGD, Adam, AdamW"}));

TEST(CompleteOptionsTest, LetsPassWhatPyTorchDoes) {
  EXPECT_OK(CompleteOptions("SGD", {{"lr", kNan}}));
  EXPECT_OK(CompleteOptions("SGD", {{"lr", 0}, {"momentum", kInfinity}}));
  EXPECT_OK(CompleteOptions("Adam", {{"lr", kInfinity}, {"betas", OptionValue::List{0.0, 0.0}}}));
  EXPECT_OK(CompleteOptions("Adam", {{"capturable", true}, {"maximize", 1}}));
}

TEST(CheckOptionsTest, AcceptsUnknownOptionsButNoMissingOnes) {
  ASSERT_OK_AND_ASSIGN(OptionMap full, CompleteOptions("SGD", {}));
  full.Set("initial_lr", 0.1);
  EXPECT_OK(CheckOptions("SGD", full));
  EXPECT_THAT(CheckOptions("SGD", {{"lr", 0.1}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "parameter group didn't specify a value of required optimization parameter "
                       "momentum"));
  full.Set("params", 1);
  EXPECT_THAT(CheckOptions("SGD", full), StatusIs(absl::StatusCode::kInvalidArgument,
                                                  testing::StartsWith("option \"params\": ")));
}

}  // namespace
}  // namespace shardstep
