#include "shardstep/tests/bench/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "nlohmann/json.hpp"

namespace shardstep {
namespace {

using Kind = Report::Kind;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(ReportTest, NamesTheBarsThatAreMissed) {
  Report report(/*slack=*/1);
  report.Bar("fast", Kind::kAtLeast, 0.72, 0.72);
  report.Bar("small", Kind::kAtMost, 1.15, 1.15);
  EXPECT_EQ(report.Missed(), "");
  report.Bar("slow", Kind::kAtLeast, 0.71, 0.72);
  report.Bar("large", Kind::kAtMost, 1.16, 1.15);
  EXPECT_EQ(report.Missed(), "missed: slow (0.71), large (1.16)");
  EXPECT_THAT(report.Table(), HasSubstr("MISSED"));
}

TEST(ReportTest, SlackWidensBothKindsOfBars) {
  Report report(/*slack=*/0.85);
  report.Bar("fast", Kind::kAtLeast, 0.86, 1);
  report.Bar("small", Kind::kAtMost, 1.17, 1);
  EXPECT_EQ(report.Missed(), "");
  report.Bar("slow", Kind::kAtLeast, 0.84, 1);
  report.Bar("large", Kind::kAtMost, 1.18, 1);
  EXPECT_EQ(report.Missed(), "missed: slow (0.84), large (1.18)");
}

TEST(ReportTest, AVoidRunHoldsNoBar) {
  Report report(1);
  report.Bar("fast", Kind::kAtLeast, 2, 1);
  report.Void("raw TCP is slow");
  EXPECT_EQ(report.Missed(), "void: raw TCP is slow");
  report.Bar("slow", Kind::kAtLeast, 0.5, 1);
  EXPECT_EQ(report.Missed(), "void: raw TCP is slow; missed: slow (0.5)");
}

TEST(ReportTest, ScriptsReadWhatPeopleRead) {
  Report report(1);
  report.Add("section", "figure", 1.5, "GB/s");
  report.Bar("bar", Kind::kAtMost, 3, 2);
  const auto json = nlohmann::json::parse(report.Json());
  EXPECT_EQ(json["figures"][0]["name"], "figure");
  EXPECT_EQ(json["figures"][0]["value"], 1.5);
  EXPECT_EQ(json["bars"][0]["at_most"], 2);
  EXPECT_EQ(json["bars"][0]["holds"], false);
  EXPECT_THAT(report.Table(), HasSubstr("GB/s"));
  EXPECT_THAT(report.Table(), Not(HasSubstr("void")));
}

}  // namespace
}  // namespace shardstep
