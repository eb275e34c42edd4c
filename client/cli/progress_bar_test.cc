#include "shardstep/client/cli/progress_bar.h"

#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shardstep {
namespace {

using ::testing::StartsWith;

constexpr uint64_t kMiB = 1 << 20;

TEST(ProgressTextTest, ShowsHowFarItIs) {
  EXPECT_EQ(ProgressText("restore", 0, 64 * kMiB, absl::ZeroDuration()),
            "restore [................................]   0% 0 B of 64.0 MiB, 0 B/s");
  EXPECT_EQ(ProgressText("restore", 48 * kMiB, 64 * kMiB, absl::Seconds(2)),
            "restore [########################........]  75% 48.0 MiB of 64.0 MiB, 24.0 MiB/s");
  EXPECT_EQ(ProgressText("restore", 64 * kMiB, 64 * kMiB, absl::Seconds(4)),
            "restore [################################] 100% 64.0 MiB of 64.0 MiB, 16.0 MiB/s");
}

TEST(ProgressTextTest, NeverShowsMoreThanAll) {
  EXPECT_EQ(ProgressText("verify", 9, 3, absl::Seconds(1)),
            "verify [################################] 100% 9 B of 3 B, 9 B/s");
}

TEST(ProgressTextTest, HasNoBarWhileTheTotalIsNotKnown) {
  EXPECT_EQ(ProgressText("checkpoint", kMiB, 0, absl::Seconds(1)), "checkpoint 1.0 MiB, 1.0 MiB/s");
}

TEST(ProgressBarTest, DrawsOneLineAndTakesItAway) {
  std::ostringstream err;
  {
    ProgressBar bar("verify", err, /*terminal=*/true);
    bar.callback()(1, 2);
    EXPECT_THAT(err.str(), StartsWith("\r\x1b[Kverify [################................]  50% "));
    bar.callback()(2, 2);  // too soon to be drawn again
    err.str("");
    bar.Clear();
    EXPECT_EQ(err.str(), "\r\x1b[K");
  }
  EXPECT_EQ(err.str(), "\r\x1b[K");
}

TEST(ProgressBarTest, ShowsNothingElsewhere) {
  std::ostringstream err;
  {
    ProgressBar bar("verify", err);
    EXPECT_EQ(bar.callback(), nullptr);
  }
  EXPECT_EQ(err.str(), "");
}

TEST(ProgressBarTest, LeavesTheTerminalAloneWhereNothingWasShown) {
  std::ostringstream err;
  { ProgressBar bar("verify", err, /*terminal=*/true); }
  EXPECT_EQ(err.str(), "");
}

}  // namespace
}  // namespace shardstep
