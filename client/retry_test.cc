#include "shardstep/client/retry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "shardstep/client/fake_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/rich_status.h"

namespace shardstep::internal {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const absl::Status kRefused = absl::UnavailableError(
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:7401: "
    "Failed to connect to remote host: Connection refused");

TEST(BackoffTest, DoublesUpToTheLongestAndIsScaledByTheRandomNumber) {
  double random = 1.0;
  Backoff backoff(absl::Milliseconds(100), absl::Milliseconds(350), [&] { return random; });
  EXPECT_EQ(backoff.Next(), absl::Milliseconds(100));
  EXPECT_EQ(backoff.Next(), absl::Milliseconds(200));
  EXPECT_EQ(backoff.Next(), absl::Milliseconds(350));
  random = 0.5;
  EXPECT_EQ(backoff.Next(), absl::Milliseconds(175));
}

TEST(RetryBudgetTest, HoldsBackWhatExceedsABurst) {
  RetryBudget budget(/*per_second=*/2.0, /*burst=*/2.0);
  const absl::Time now = absl::UnixEpoch();
  EXPECT_EQ(budget.Withdraw(now), absl::ZeroDuration());
  EXPECT_EQ(budget.Withdraw(now), absl::ZeroDuration());
  EXPECT_EQ(budget.Withdraw(now), absl::Milliseconds(500));
  EXPECT_EQ(budget.Withdraw(now), absl::Seconds(1));
  // Two seconds give four tokens, of which two were owed.
  EXPECT_EQ(budget.Withdraw(now + absl::Seconds(2)), absl::ZeroDuration());
}

TEST(RetryBudgetTest, TenCallsGiveOneRetry) {
  RetryBudget budget(/*per_second=*/1.0, /*burst=*/1.0);
  const absl::Time now = absl::UnixEpoch();
  EXPECT_EQ(budget.Withdraw(now), absl::ZeroDuration());
  for (int i = 0; i < 10; ++i) budget.OnCall();
  EXPECT_LT(budget.Withdraw(now), absl::Milliseconds(1));
  EXPECT_GT(budget.Withdraw(now), absl::Milliseconds(900));
}

TEST(RetryTest, GivesUpAtTheDeadlineAndSaysWhomItTriedHowOftenAndHowLong) {
  FakeTimer timer;
  RetryPolicy policy = FakePolicy(&timer);
  Retry retry(policy, timer.Now() + absl::Seconds(5));
  int attempts = 1;
  while (retry.Again(kRefused)) ++attempts;
  EXPECT_EQ(attempts, 7);
  EXPECT_THAT(retry.Explain("server 1 at 127.0.0.1:7401", kRefused),
              StatusIs(absl::StatusCode::kUnavailable,
                       "server 1 at 127.0.0.1:7401: connection refused, 7 attempts in 5.0 s"));
}

TEST(RetryTest, WaitsAsLongAsTheServerAsks) {
  FakeTimer timer;
  Retry retry(FakePolicy(&timer), timer.Now() + absl::Seconds(5));
  v1::ErrorDetail detail;
  detail.set_retry_delay_ms(700);
  EXPECT_TRUE(retry.Again(MakeError(absl::StatusCode::kResourceExhausted, "full", detail)));
  EXPECT_THAT(timer.slept, ElementsAre(absl::Milliseconds(700)));
}

TEST(RetryTest, FinalErrorsAreNotRepeatedAndKeepTheServersWords) {
  FakeTimer timer;
  Retry retry(FakePolicy(&timer), timer.Now() + absl::Seconds(5));
  const absl::Status fenced =
      MakeError(absl::StatusCode::kFailedPrecondition, "session 3 was replaced", v1::FENCED);
  EXPECT_FALSE(retry.Again(fenced));
  EXPECT_EQ(retry.Explain("server 1", fenced), fenced);
  EXPECT_TRUE(timer.slept.empty());
  EXPECT_FALSE(IsTransient(absl::InternalError("division by zero")));
  EXPECT_TRUE(IsTransient(absl::InternalError("Received RST_STREAM with error code 2")));
}

TEST(RetryTest, AnAttemptNeverOutlastsTheDeadline) {
  FakeTimer timer;
  Retry retry(FakePolicy(&timer), timer.Now() + absl::Seconds(5));
  EXPECT_EQ(retry.AttemptTimeout(absl::Seconds(30)), absl::Seconds(5));
  EXPECT_EQ(retry.AttemptTimeout(absl::Seconds(2)), absl::Seconds(2));
  timer.Advance(absl::Seconds(9));
  EXPECT_EQ(retry.AttemptTimeout(absl::Seconds(2)), absl::Milliseconds(1));
}

}  // namespace
}  // namespace shardstep::internal
