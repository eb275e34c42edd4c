#include "shardstep/optim/options/option_value.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace shardstep {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(FloatReprTest, IsPythons) {
  EXPECT_EQ(FloatRepr(0.1), "0.1");
  EXPECT_EQ(FloatRepr(1e-08), "1e-08");
  EXPECT_EQ(FloatRepr(5), "5.0");
  EXPECT_EQ(FloatRepr(-0.0), "-0.0");
  EXPECT_EQ(FloatRepr(0.0001), "0.0001");
  EXPECT_EQ(FloatRepr(0.00001), "1e-05");
  EXPECT_EQ(FloatRepr(1.5e-5), "1.5e-05");
  EXPECT_EQ(FloatRepr(1e15), "1000000000000000.0");
  EXPECT_EQ(FloatRepr(123456789012345680.0), "1.2345678901234568e+17");
  EXPECT_EQ(FloatRepr(1e16), "1e+16");
  EXPECT_EQ(FloatRepr(1e300), "1e+300");
  EXPECT_EQ(FloatRepr(5e-324), "5e-324");
  EXPECT_EQ(FloatRepr(0.1 + 0.2), "0.30000000000000004");
  EXPECT_EQ(FloatRepr(kNan), "nan");
  EXPECT_EQ(FloatRepr(-std::numeric_limits<double>::infinity()), "-inf");
}

TEST(OptionValueTest, ToStringIsPythonsRepr) {
  EXPECT_EQ(OptionValue().ToString(), "None");
  EXPECT_EQ(OptionValue(true).ToString(), "True");
  EXPECT_EQ(OptionValue(false).ToString(), "False");
  EXPECT_EQ(OptionValue(-3).ToString(), "-3");
  EXPECT_EQ(OptionValue(0.001).ToString(), "0.001");
  EXPECT_EQ(OptionValue("a'b").ToString(), "\"a'b\"");
  EXPECT_EQ(OptionValue("a'b\"\\\n\x01").ToString(), R"('a\'b"\\\n\x01')");
  EXPECT_EQ(OptionValue(OptionValue::List{0.9, 0.999}).ToString(), "(0.9, 0.999)");
  EXPECT_EQ(OptionValue(OptionValue::List{OptionValue()}).ToString(), "(None,)");
  EXPECT_EQ(OptionValue(OptionValue::List{}).ToString(), "()");
}

TEST(OptionValueTest, EqualsAsInPython) {
  EXPECT_EQ(OptionValue(1), OptionValue(1.0));
  EXPECT_EQ(OptionValue(true), OptionValue(1));
  EXPECT_EQ(OptionValue(false), OptionValue(0.0));
  EXPECT_EQ(OptionValue(OptionValue::List{1, "x"}), OptionValue(OptionValue::List{1.0, "x"}));
  EXPECT_NE(OptionValue(), OptionValue(false));
  EXPECT_NE(OptionValue("1"), OptionValue(1));
  EXPECT_NE(OptionValue(int64_t{9007199254740993}), OptionValue(int64_t{9007199254740992}));
}

TEST(OptionValueTest, NanEqualsItself) {
  EXPECT_EQ(OptionValue(kNan), OptionValue(kNan));
  EXPECT_NE(OptionValue(kNan), OptionValue(0.0));
}

TEST(OptionValueTest, TruthIsPythons) {
  EXPECT_TRUE(OptionValue("x").IsTrue());
  EXPECT_TRUE(OptionValue(-1).IsTrue());
  EXPECT_TRUE(OptionValue(kNan).IsTrue());
  EXPECT_TRUE(OptionValue(OptionValue::List{0}).IsTrue());
  EXPECT_FALSE(OptionValue().IsTrue());
  EXPECT_FALSE(OptionValue("").IsTrue());
  EXPECT_FALSE(OptionValue(0.0).IsTrue());
  EXPECT_FALSE(OptionValue(OptionValue::List{}).IsTrue());
}

TEST(OptionMapTest, KeepsTheOrderOfFirstSetting) {
  OptionMap map = {{"b", 1}, {"a", 2}};
  map.Set("b", 3);
  map.Set("c", 4);
  std::string order;
  for (const auto& [name, value] : map) order += name + value.ToString();
  EXPECT_EQ(order, "b3a2c4");
}

TEST(OptionMapTest, EqualityIgnoresOrder) {
  EXPECT_EQ((OptionMap{{"a", 1}, {"b", 2}}), (OptionMap{{"b", 2.0}, {"a", 1}}));
  EXPECT_NE((OptionMap{{"a", 1}}), (OptionMap{{"a", 1}, {"b", 2}}));
  EXPECT_NE((OptionMap{{"a", 1}}), (OptionMap{{"b", 1}}));
}

TEST(OptionMapTest, NumbersAndTruth) {
  const OptionMap map = {{"lr", 1}, {"nesterov", true}, {"foreach", OptionValue()}};
  EXPECT_EQ(map.Number("lr"), 1);
  EXPECT_TRUE(std::isnan(map.Number("foreach")));
  EXPECT_TRUE(std::isnan(map.Number("eps")));
  EXPECT_TRUE(map.IsTrue("nesterov"));
  EXPECT_FALSE(map.IsTrue("foreach"));
  EXPECT_FALSE(map.IsTrue("eps"));
}

}  // namespace
}  // namespace shardstep
