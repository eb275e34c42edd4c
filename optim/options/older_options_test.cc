#include "shardstep/optim/options/older_options.h"

#include "gtest/gtest.h"

namespace shardstep {
namespace {

TEST(OlderOptionsTest, AnAdamWithoutItsLaterOptionsIsWhatItWas) {
  OptionMap options = {{"lr", 0.1}};
  AddOlderOptions("Adam", &options);
  EXPECT_EQ(*options.Find("amsgrad"), OptionValue(false));
  EXPECT_EQ(*options.Find("maximize"), OptionValue(false));
  EXPECT_EQ(*options.Find("decoupled_weight_decay"), OptionValue(false));
  EXPECT_EQ(*options.Find("lr"), OptionValue(0.1));
  EXPECT_EQ(options.Find("betas"), nullptr);
}

TEST(OlderOptionsTest, AnAdamWWithoutTheFlagIsDecoupled) {
  OptionMap options;
  AddOlderOptions("AdamW", &options);
  EXPECT_EQ(*options.Find("decoupled_weight_decay"), OptionValue(true));
}

TEST(OlderOptionsTest, AnAdamWIsDecoupledWhateverTheGroupSays) {
  OptionMap of_adam = {{"decoupled_weight_decay", false}};
  AddOlderOptions("AdamW", &of_adam);
  EXPECT_EQ(*of_adam.Find("decoupled_weight_decay"), OptionValue(true));
  OptionMap of_adamw = {{"decoupled_weight_decay", true}};
  AddOlderOptions("Adam", &of_adamw);
  EXPECT_EQ(*of_adamw.Find("decoupled_weight_decay"), OptionValue(true));
}

TEST(OlderOptionsTest, WhatTheGroupHasStays) {
  OptionMap options = {{"maximize", true}};
  AddOlderOptions("SGD", &options);
  EXPECT_EQ(*options.Find("maximize"), OptionValue(true));
  EXPECT_EQ(*options.Find("nesterov"), OptionValue(false));
  EXPECT_EQ(options.Find("momentum"), nullptr);
}

TEST(OlderOptionsTest, RmspropHadNoMomentumAtFirst) {
  OptionMap options;
  AddOlderOptions("RMSprop", &options);
  EXPECT_EQ(options.Find("momentum")->AsNumber(), 0.0);
  EXPECT_EQ(*options.Find("centered"), OptionValue(false));
}

}  // namespace
}  // namespace shardstep
