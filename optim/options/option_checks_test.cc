#include "shardstep/optim/options/option_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
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

  const OptimizerOptions adamw = AdamWOptions().betas({0.1, 0.2}).amsgrad(false);
  EXPECT_EQ(adamw.kind, "AdamW");
  ASSERT_OK_AND_ASSIGN(const OptionMap adamw_full, CompleteOptions(adamw.kind, adamw.given));
  EXPECT_EQ(adamw_full.Find("betas")->ToString(), "(0.1, 0.2)");
}

TEST(CompleteOptionsTest, TakesTheBuildersOfTheOthers) {
  const std::vector<std::pair<OptimizerOptions, std::string>> builders = {
      {AdagradOptions(1).lr_decay(2).initial_accumulator_value(3).eps(4).weight_decay(5),
       "Adagrad lr=1.0 lr_decay=2.0 eps=4.0 weight_decay=5.0 initial_accumulator_value=3.0 "
       "foreach=None maximize=False differentiable=False fused=None "},
      {RMSpropOptions(1).alpha(2).eps(3).momentum(4).centered(true).weight_decay(5),
       "RMSprop lr=1.0 momentum=4.0 alpha=2.0 eps=3.0 centered=True weight_decay=5.0 "
       "capturable=False foreach=None maximize=False differentiable=False "},
      {AdadeltaOptions().rho(0.5).eps(2).weight_decay(3).maximize(true),
       "Adadelta lr=1.0 rho=0.5 eps=2.0 weight_decay=3.0 maximize=True capturable=False "
       "foreach=None differentiable=False "},
      {NAdamOptions(1).betas(0.25, 0.5).eps(2).momentum_decay(3).decoupled_weight_decay(true),
       "NAdam lr=1.0 betas=(0.25, 0.5) eps=2.0 weight_decay=0 momentum_decay=3.0 "
       "decoupled_weight_decay=True maximize=False foreach=None capturable=False "
       "differentiable=False "},
      {RAdamOptions(1).betas(0.25, 0.5).eps(2).weight_decay(3).decoupled_weight_decay(true),
       "RAdam lr=1.0 betas=(0.25, 0.5) eps=2.0 weight_decay=3.0 maximize=False foreach=None "
       "capturable=False decoupled_weight_decay=True differentiable=False "},
      {AdamaxOptions(1).betas(0.25, 0.5).eps(2).weight_decay(3).maximize(true),
       "Adamax lr=1.0 betas=(0.25, 0.5) eps=2.0 weight_decay=3.0 foreach=None maximize=True "
       "differentiable=False capturable=False "},
      {RpropOptions(1).etas(0.25, 1.5).step_sizes(2, 3).maximize(true),
       "Rprop lr=1.0 etas=(0.25, 1.5) step_sizes=(2.0, 3.0) foreach=None maximize=True "
       "differentiable=False capturable=False "},
      {ASGDOptions(1).lambd(2).alpha(3).t0(4).weight_decay(5),
       "ASGD lr=1.0 lambd=2.0 alpha=3.0 t0=4.0 weight_decay=5.0 foreach=None maximize=False "
       "differentiable=False capturable=False "},
      {SparseAdamOptions(1).betas(0.25, 0.5).eps(2).maximize(true),
       "SparseAdam lr=1.0 betas=(0.25, 0.5) eps=2.0 maximize=True "},
      {AdafactorOptions(1).beta2_decay(-2).eps(std::nullopt, 3).d(4).weight_decay(5),
       "Adafactor lr=1.0 beta2_decay=-2.0 eps=(None, 3.0) d=4.0 weight_decay=5.0 foreach=None "
       "maximize=False "},
      {AdafactorOptions().eps(0.5, 1),
       "Adafactor lr=0.01 beta2_decay=-0.8 eps=(0.5, 1.0) d=1.0 weight_decay=0.0 foreach=None "
       "maximize=False "},
      {MuonOptions(),
       "Muon lr=0.001 weight_decay=0.1 momentum=0.95 nesterov=True "
       "ns_coefficients=(3.4445, -4.775, 2.0315) eps=1e-07 ns_steps=5 adjust_lr_fn=None "},
      {MuonOptions(1)
           .weight_decay(2)
           .momentum(3)
           .nesterov(false)
           .ns_coefficients(4, 5, 6)
           .eps(7)
           .ns_steps(8)
           .adjust_lr_fn("original"),
       "Muon lr=1.0 weight_decay=2.0 momentum=3.0 nesterov=False ns_coefficients=(4.0, 5.0, 6.0) "
       "eps=7.0 ns_steps=8 adjust_lr_fn='original' "},
      {LambOptions(1).betas(0.25, 0.5).eps(2).weight_decay(3).always_adapt(true).maximize(true),
       "LAMB lr=1.0 betas=(0.25, 0.5) eps=2.0 weight_decay=3.0 always_adapt=True maximize=True "},
      {LarsOptions(1).momentum(2).weight_decay(3).nesterov(true).trust_coefficient(4).eps(5),
       "LARS lr=1.0 momentum=2.0 dampening=0 weight_decay=3.0 nesterov=True "
       "trust_coefficient=4.0 eps=5.0 always_adapt=False maximize=False "},
      {LarsOptions().dampening(0.5).always_adapt(true),
       "LARS lr=1.0 momentum=0 dampening=0.5 weight_decay=0 nesterov=False "
       "trust_coefficient=0.001 eps=1e-08 always_adapt=True maximize=False "},
      {RowWiseAdagradOptions(1).lr_decay(2).initial_accumulator_value(3).eps(4).weight_decay(5),
       "RowWiseAdagrad lr=1.0 lr_decay=2.0 eps=4.0 weight_decay=5.0 "
       "initial_accumulator_value=3.0 maximize=False "}};
  for (const auto& [options, expected] : builders) {
    ASSERT_OK_AND_ASSIGN(const OptionMap full, CompleteOptions(options.kind, options.given));
    EXPECT_EQ(absl::StrCat(options.kind, " ", ToText(full)), expected);
  }
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
    testing::Values(
        Refusal{"LBFGS",
                {},
                "optimizer \"LBFGS\": not on servers: its step calls a closure, which evaluates "
                "the model several times, and servers do not have the model"},
        Refusal{"Lion",
                {},
                "unknown optimizer \"Lion\": expected one of SGD, Adam, AdamW, Adagrad, RMSprop, "
                "Adadelta, NAdam, RAdam, Adamax, Rprop, ASGD, Adafactor, Muon, LAMB, LARS, "
                "RowWiseAdagrad, SparseAdam"}));

// PyTorch's own words for numbers out of range are in the golden files.
INSTANTIATE_TEST_SUITE_P(
    Others, RefusalTest,
    testing::Values(
        Refusal{"Adagrad", {{"eps", "x"}}, "option \"eps\": expected a number, got 'x'"},
        Refusal{"ASGD", {{"t0", {}}}, "option \"t0\": expected a number, got None"},
        Refusal{"NAdam",
                {{"betas", OptionValue::List{}}},
                "option \"betas\": expected two numbers, got ()"},
        Refusal{"Rprop", {{"etas", 0.5}}, "option \"etas\": expected two numbers, got 0.5"},
        Refusal{"Rprop",
                {{"step_sizes", OptionValue::List{1e-6, {}}}},
                "option \"step_sizes\": expected two numbers, got (1e-06, None)"}));

// PyTorch's own words for the others are in the golden files; these it says in a step, or not at
// all.
INSTANTIATE_TEST_SUITE_P(
    Coupled, RefusalTest,
    testing::Values(
        Refusal{"Adafactor",
                {{"eps", 1e-3}},
                "option \"eps\": expected None or a number, and a number, got 0.001"},
        Refusal{"Adafactor",
                {{"eps", OptionValue::List{1e-3, {}}}},
                "option \"eps\": expected None or a number, and a number, got (0.001, None)"},
        Refusal{"Muon",
                {{"ns_coefficients", OptionValue::List{1.0, 2.0}}},
                "Coefficients must be a tuple of exactly 3 values"},
        Refusal{"Muon",
                {{"ns_coefficients", OptionValue::List{1.0, 2.0, "x"}}},
                "option \"ns_coefficients\": expected numbers, got 'x'"},
        Refusal{"Muon",
                {{"adjust_lr_fn", "arbitrary"}},
                "Adjust learning rate function arbitrary is not supported"},
        Refusal{"Muon",
                {{"ns_steps", 100}},
                "Number of steps must be less than 100 for computational efficiency"},
        Refusal{"Muon", {{"ns_steps", 2.5}}, "option \"ns_steps\": expected an integer, got 2.5"},
        Refusal{"Muon",
                {{"maximize", true}},
                "Muon.__init__() got an unexpected keyword argument 'maximize'"},
        Refusal{"LAMB", {{"eps", -1}}, "Invalid epsilon value: -1"},
        Refusal{"LARS", {{"trust_coefficient", -1}}, "Invalid trust_coefficient value: -1"},
        Refusal{"LARS", {{"lr", kNan}}, "Invalid learning rate: nan"},
        Refusal{"LARS",
                {{"nesterov", true}},
                "Nesterov momentum requires a momentum and zero dampening"},
        Refusal{"RowWiseAdagrad", {{"lr_decay", -0.5}}, "Invalid lr_decay value: -0.5"}));

TEST(CheckSizesTest, SomeNeedMatricesOrRows) {
  EXPECT_THAT(CheckSizes("Muon", "w", {2, 3, 4}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "Muon only supports 2D parameters whereas we found a parameter with size: "
                       "torch.Size([2, 3, 4])"));
  EXPECT_THAT(CheckSizes("Muon", "w", {}),
              StatusIs(absl::StatusCode::kInvalidArgument, testing::EndsWith("torch.Size([])")));
  EXPECT_OK(CheckSizes("Muon", "w", {2, 0}));
  EXPECT_THAT(CheckSizes("RowWiseAdagrad", "w", {3}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "RowWiseAdagrad needs rows: parameter \"w\": expected at least 2 "
                       "dimensions, got 1"));
  EXPECT_OK(CheckSizes("RowWiseAdagrad", "w", {2, 3, 4}));
  EXPECT_OK(CheckSizes("Adafactor", "w", {}));
}

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
