#include "shardstep/checkpoint/strict_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<Json> Parse(absl::string_view text) { return ParseStrictJson(text, 1 << 20); }

auto Refused(const std::string& what) {
  return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(what));
}

TEST(StrictJsonTest, KeepsValuesAndTheOrderOfMembers) {
  const std::string text =
      R"({"z":[1,-2,18446744073709551615,1.0,1e-08],"a":{"b":null},"ä":true,"x":"\"\\/\n"})";
  ASSERT_OK_AND_ASSIGN(const Json json, Parse(text));
  EXPECT_EQ(DumpJson(json), text);
  EXPECT_TRUE(json["z"][3].is_number_float());
  EXPECT_TRUE(json["z"][0].is_number_unsigned());
}

TEST(StrictJsonTest, RefusesWhatIsNotJson) {
  EXPECT_THAT(Parse(""), Refused("byte 0: "));
  EXPECT_THAT(Parse("{"), Refused("byte 0: "));
  EXPECT_THAT(Parse("[1,NaN]"), Refused("byte 3: "));
  EXPECT_THAT(Parse("[Infinity]"), Refused("byte 1: "));
  EXPECT_THAT(Parse("[-Infinity]"), Refused("byte 2: "));
  EXPECT_THAT(Parse("[1e999]"), Refused("byte "));
  EXPECT_THAT(Parse("[1,]"), Refused("byte 3: "));
  EXPECT_THAT(Parse("[1] x"), Refused("byte 4: "));
  EXPECT_THAT(Parse("/**/[1]"), Refused("byte 0: "));
  EXPECT_THAT(Parse("[\"\xff\"]"), Refused("byte 2: "));
  EXPECT_THAT(Parse("[\"\xed\xa0\x80\"]"), Refused("byte 3: "));
  EXPECT_THAT(Parse(absl::string_view("[1]\0", 4)), Refused("byte 3: "));
}

TEST(StrictJsonTest, RefusesANameTwice) {
  EXPECT_THAT(Parse(R"({"a":1,"b":{"a":2},"a":3})"), Refused("byte 21: name \"a\" stands twice"));
  EXPECT_OK(Parse(R"([{"a":1},{"a":2}])"));
}

TEST(StrictJsonTest, RefusesDeepNesting) {
  const auto nested = [](int depth) {
    return absl::StrCat(std::string(depth, '['), std::string(depth, ']'));
  };
  EXPECT_OK(Parse(nested(kMaxJsonDepth)));
  EXPECT_THAT(Parse(nested(kMaxJsonDepth + 1)), Refused("byte 64: nested more than 64 deep"));
  EXPECT_THAT(Parse(std::string(1 << 20, '[')), Refused("byte 64: nested more than 64 deep"));
}

TEST(StrictJsonTest, RefusesTooMuch) {
  EXPECT_OK(ParseStrictJson("[1]", 3));
  EXPECT_THAT(ParseStrictJson("[12]", 3), Refused("4 bytes, expected at most 3"));
}

TEST(StrictJsonTest, DumpsTextThatIsNotUtf8OnlyWhenToldTo) {
  Json json = Json::object();
  AddMember(&json, "a", "\xff");
  EXPECT_EQ(DumpJson(json), "{\"a\":\"\xef\xbf\xbd\"}");
  EXPECT_THAT(DumpStrictJson(json), Refused("UTF-8"));
}

}  // namespace
}  // namespace shardstep
