#include "shardstep/sharding/parameter_name.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using testing::HasSubstr;

constexpr auto kInvalidArgument = absl::StatusCode::kInvalidArgument;

TEST(ValidateNameTest, AcceptsUtf8) {
  for (const char* name : {"w", "encoder.0.weight", " ", "\xC3\xA4", "\xE2\x82\xAC", "\xEF\xBF\xBF",
                           "\xED\x9F\xBF", "\xF0\x9F\x98\x80", "\xF4\x8F\xBF\xBF", "\xC2\xA0"}) {
    EXPECT_OK(ValidateName(name)) << name;
  }
  EXPECT_OK(ValidateName(std::string(512, 'a')));
}

TEST(ValidateNameTest, RefusesAllElse) {
  EXPECT_THAT(ValidateName(""), StatusIs(kInvalidArgument, "parameter name is empty"));
  EXPECT_THAT(ValidateName(std::string(513, 'a')),
              StatusIs(kInvalidArgument, HasSubstr("has 513 bytes, expected at most 512")));
  EXPECT_THAT(ValidateName("fc\n1"),
              StatusIs(kInvalidArgument, "parameter name \"fc\\n1\": control character at byte 2"));
  for (const char* name : {"\x01", "\x1F", "\x7F", "\xC2\x80", "\xC2\x9F"}) {
    EXPECT_THAT(ValidateName(name), StatusIs(kInvalidArgument, HasSubstr("control character")));
  }
  EXPECT_THAT(ValidateName(std::string("a\0b", 3)),
              StatusIs(kInvalidArgument, HasSubstr("control character at byte 1")));
  // Lone continuation, overlong forms, cut off, surrogate, above the last code point, no leads.
  for (const char* name : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF",
                           "\xE2\x82", "\xE2\x28\xA1", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xFF",
                           "\xF5\x80\x80\x80", "\xF8\x90\x80\x80"}) {
    EXPECT_THAT(ValidateName(absl::StrCat("ab", name)),
                StatusIs(kInvalidArgument, HasSubstr("invalid UTF-8 at byte 2")));
  }
}

}  // namespace
}  // namespace shardstep
