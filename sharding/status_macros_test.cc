#include "shardstep/sharding/status_macros.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <utility>

#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using testing::Pointee;

absl::Status ReturnIfError(absl::Status status, int* evaluations, bool* went_on) {
  SHARDSTEP_RETURN_IF_ERROR((++*evaluations, std::move(status)));
  *went_on = true;
  return absl::OkStatus();
}

TEST(ReturnIfErrorTest, GoesOnAfterOk) {
  int evaluations = 0;
  bool went_on = false;
  EXPECT_OK(ReturnIfError(absl::OkStatus(), &evaluations, &went_on));
  EXPECT_EQ(evaluations, 1);
  EXPECT_TRUE(went_on);
}

TEST(ReturnIfErrorTest, ReturnsTheErrorUnchanged) {
  int evaluations = 0;
  bool went_on = false;
  EXPECT_THAT(ReturnIfError(absl::DataLossError("bad checksum"), &evaluations, &went_on),
              StatusIs(absl::StatusCode::kDataLoss, "bad checksum"));
  EXPECT_EQ(evaluations, 1);
  EXPECT_FALSE(went_on);
}

TEST(ReturnIfErrorTest, IsOneStatement) {
  const auto function = [](bool check) -> absl::Status {
    if (check)
      SHARDSTEP_RETURN_IF_ERROR(absl::AbortedError("checked"));
    else
      return absl::OkStatus();
    return absl::UnknownError("unreachable");
  };
  EXPECT_THAT(function(true), StatusIs(absl::StatusCode::kAborted));
  EXPECT_OK(function(false));
}

// Move-only, as most values that matter are.
absl::StatusOr<std::unique_ptr<int>> Twice(absl::StatusOr<std::unique_ptr<int>> number) {
  SHARDSTEP_ASSIGN_OR_RETURN(std::unique_ptr<int> value, std::move(number));
  *value *= 2;
  return value;
}

TEST(AssignOrReturnTest, MovesTheValue) {
  EXPECT_THAT(Twice(std::make_unique<int>(21)), IsOkAndHolds(Pointee(42)));
}

TEST(AssignOrReturnTest, ReturnsTheErrorUnchanged) {
  EXPECT_THAT(Twice(absl::NotFoundError("no number")),
              StatusIs(absl::StatusCode::kNotFound, "no number"));
}

TEST(AssignOrReturnTest, AssignsToWhatExistsAndTakesCommas) {
  const auto function = []() -> absl::StatusOr<int> {
    std::map<int, int> numbers;
    SHARDSTEP_ASSIGN_OR_RETURN(numbers[0], absl::StatusOr<int>(3));
    SHARDSTEP_ASSIGN_OR_RETURN(const auto more,
                               absl::StatusOr<std::map<int, int>>(std::map<int, int>{{1, 4}}));
    return numbers.at(0) + more.at(1);
  };
  EXPECT_THAT(function(), IsOkAndHolds(7));
}

}  // namespace
}  // namespace shardstep
