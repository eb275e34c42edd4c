#include "shardstep/checkpoint/option_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "shardstep/optim/options/option_checks.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::HasSubstr;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Equal in type too, which == does not ask for.
void ExpectSame(const OptionValue& a, const OptionValue& b) {
  EXPECT_EQ(a.value().index(), b.value().index());
  EXPECT_EQ(a, b);
}

auto Refused(const std::string& what) {
  return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(what));
}

TEST(OptionJsonTest, GroupsReadAsPythonWritesThem) {
  ASSERT_OK_AND_ASSIGN(const OptionMap options, CompleteOptions("SGD", {{"momentum", 1.0}}));
  const std::vector<ParamGroup> groups = {{options, {"fc1.weight", "fc1.bias"}}};
  const std::string text = ParamGroupsToJson(groups);
  EXPECT_EQ(text, R"([{"lr":0.001,"momentum":1.0,"dampening":0,"weight_decay":0,"nesterov":false,)"
                  R"("maximize":false,"foreach":null,"differentiable":false,"fused":null,)"
                  R"("params":["fc1.weight","fc1.bias"]}])");
  EXPECT_THAT(ParamGroupsFromJson(text), IsOkAndHolds(groups));
}

TEST(OptionJsonTest, EveryKindOfValueComesBack) {
  const OptionMap options = {
      {"none", OptionValue()},
      {"bool", true},
      {"int", -3},
      {"large", std::numeric_limits<int64_t>::min()},
      {"largest", std::numeric_limits<int64_t>::max()},
      {"float", 1.0},
      {"small", 5e-324},
      {"third", 1.0 / 3},
      {"minus zero", -0.0},
      {"inf", kInfinity},
      {"-inf", -kInfinity},
      {"nan", std::numeric_limits<double>::quiet_NaN()},
      {"text", "ä\"\n"},
      {"list", OptionValue::List{0.9, OptionValue::List{1, OptionValue()}, OptionValue::List{}}},
  };
  const std::vector<ParamGroup> groups = {{options, {}}};
  ASSERT_OK_AND_ASSIGN(const auto back, ParamGroupsFromJson(ParamGroupsToJson(groups)));
  ASSERT_EQ(back[0].options.size(), options.size());
  auto entry = back[0].options.begin();
  for (const auto& [name, value] : options) {
    SCOPED_TRACE(name);
    EXPECT_EQ(entry->first, name);  // the order stays
    ExpectSame(entry->second, value);
    ++entry;
  }
  EXPECT_TRUE(std::signbit(back[0].options.Number("minus zero")));
}

TEST(OptionJsonTest, RefusesWhatIsNoGroup) {
  EXPECT_THAT(ParamGroupsFromJson("{}"), Refused("not a list"));
  EXPECT_THAT(ParamGroupsFromJson("[]"), Refused("empty parameter list"));
  EXPECT_THAT(ParamGroupsFromJson("[1]"), Refused("group 0: not an object"));
  EXPECT_THAT(ParamGroupsFromJson(R"([{"lr":1}])"), Refused("group 0: has no list \"params\""));
  EXPECT_THAT(ParamGroupsFromJson(R"([{"params":[0]}])"), Refused("expected names"));
  EXPECT_THAT(ParamGroupsFromJson(R"([{"params":[""]}])"), Refused("group 0"));
  EXPECT_THAT(ParamGroupsFromJson(R"([{"params":["a"]},{"params":["a"]}])"),
              Refused("more than one parameter group"));
  EXPECT_THAT(ParamGroupsFromJson(R"([{"params":[],"":1}])"), Refused("option \"\""));
  EXPECT_THAT(ParamGroupsFromJson(R"([{"params":[],"lr":NaN}])"), Refused("byte "));
}

TEST(OptionJsonTest, RefusesWhatIsNoOption) {
  const auto parse = [](const char* value) {
    return ParamGroupsFromJson(std::string(R"([{"params":[],"x":)") + value + "}]");
  };
  EXPECT_OK(parse("[[[[[[[[]]]]]]]]"));
  EXPECT_THAT(parse("[[[[[[[[[]]]]]]]]]"), Refused("option \"x\": lists are nested"));
  EXPECT_THAT(parse("9223372036854775808"), Refused("option \"x\": 9223372036854775808"));
  EXPECT_THAT(parse(R"({"float":"1"})"), Refused("option \"x\": an object"));
  EXPECT_THAT(parse(R"({"float":"inf","a":1})"), Refused("option \"x\": an object"));
  EXPECT_THAT(parse("{}"), Refused("option \"x\": an object"));
}

}  // namespace
}  // namespace shardstep
