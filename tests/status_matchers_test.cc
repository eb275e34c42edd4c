#include "shardstep/tests/status_matchers.h"

#include <gtest/gtest-spi.h>

#include <memory>
#include <string>
#include <utility>

namespace shardstep {
namespace {

using testing::_;
using testing::AnyOf;
using testing::Gt;
using testing::HasSubstr;
using testing::Not;
using testing::Pointee;

absl::StatusOr<int> Four() { return 4; }
absl::StatusOr<int> Missing() { return absl::NotFoundError("no 'w'"); }

TEST(IsOkTest, MatchesStatusAndStatusOr) {
  EXPECT_THAT(absl::OkStatus(), IsOk());
  EXPECT_THAT(Four(), IsOk());
  EXPECT_THAT(absl::NotFoundError("no 'w'"), Not(IsOk()));
  EXPECT_THAT(Missing(), Not(IsOk()));
}

TEST(IsOkAndHoldsTest, MatchesTheValue) {
  EXPECT_THAT(Four(), IsOkAndHolds(4));
  EXPECT_THAT(Four(), IsOkAndHolds(Gt(3)));
  EXPECT_THAT(Four(), Not(IsOkAndHolds(5)));
  EXPECT_THAT(Missing(), Not(IsOkAndHolds(_)));
  EXPECT_THAT(absl::StatusOr<std::unique_ptr<int>>(std::make_unique<int>(3)),
              IsOkAndHolds(Pointee(3)));
}

TEST(StatusIsTest, MatchesCodeAndMessage) {
  EXPECT_THAT(Missing(), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(Missing(), StatusIs(absl::StatusCode::kNotFound, "no 'w'"));
  EXPECT_THAT(Missing().status(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("'w'")));
  EXPECT_THAT(Missing(),
              StatusIs(AnyOf(absl::StatusCode::kNotFound, absl::StatusCode::kAborted), _));
  EXPECT_THAT(Missing(), Not(StatusIs(absl::StatusCode::kAborted)));
  EXPECT_THAT(Missing(), Not(StatusIs(absl::StatusCode::kNotFound, "no 'b'")));
}

TEST(MacrosTest, AssignTheValue) {
  ASSERT_OK_AND_ASSIGN(const int four, Four());
  EXPECT_EQ(four, 4);
}

void AssignMissing() {
  ASSERT_OK_AND_ASSIGN(const int missing, Missing());
  ADD_FAILURE() << "went on with " << missing;
}

TEST(MacrosTest, FailWithTheStatus) {
  EXPECT_NONFATAL_FAILURE(EXPECT_OK(Missing()), "NOT_FOUND: no 'w'");
  EXPECT_FATAL_FAILURE(AssignMissing(), "NOT_FOUND: no 'w'");
}

}  // namespace
}  // namespace shardstep
