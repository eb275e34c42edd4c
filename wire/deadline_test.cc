#include "shardstep/wire/deadline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/limits.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1'700'000'000);

TEST(CheckDeadlineTest, AcceptsWhatIsWithinTheLimit) {
  EXPECT_OK(CheckDeadline("Step", kNow + kMaxDeadline, kNow));
  EXPECT_OK(CheckDeadline("Step", kNow - absl::Seconds(1), kNow));
}

TEST(CheckDeadlineTest, RefusesWhatIsFurtherAway) {
  const absl::Status status = CheckDeadline("Step", kNow + absl::Seconds(601), kNow);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument,
                               "Step: deadline in 601 s, expected one within 600 s"));
  EXPECT_EQ(ReasonOf(status), v1::DEADLINE_REQUIRED);
}

TEST(CheckDeadlineTest, RefusesNone) {
  const absl::Time infinities[] = {
      absl::InfiniteFuture(),
      absl::FromChrono(std::chrono::system_clock::time_point::max()),  // gRPC's
  };
  for (absl::Time infinity : infinities) {
    const absl::Status status = CheckDeadline("Step", infinity, kNow);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument,
                                 "Step: no deadline, expected one within 600 s"));
    EXPECT_EQ(ReasonOf(status), v1::DEADLINE_REQUIRED);
  }
}

}  // namespace
}  // namespace shardstep
