#include "shardstep/client/cli/newest_checkpoint.h"

#include "gtest/gtest.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

CheckpointSummary Checkpoint(const std::string& id, const std::string& problem = "") {
  CheckpointSummary summary;
  summary.id = id;
  summary.problem = problem;
  return summary;
}

TEST(NewestCheckpointTest, IsTheLastThatCanBeRead) {
  EXPECT_THAT(NewestCheckpoint("net", {Checkpoint("b"), Checkpoint("a")}), IsOkAndHolds("a"));
  EXPECT_THAT(NewestCheckpoint("net", {Checkpoint("b"), Checkpoint("a", "damaged")}),
              IsOkAndHolds("b"));
}

TEST(NewestCheckpointTest, SaysThatThereIsNone) {
  EXPECT_THAT(NewestCheckpoint("net", {}).status(),
              StatusIs(absl::StatusCode::kNotFound, "optimizer \"net\": no checkpoint"));
  EXPECT_THAT(NewestCheckpoint("net", {Checkpoint("a", "damaged")}).status(),
              StatusIs(absl::StatusCode::kNotFound,
                       "optimizer \"net\": no checkpoint that can be read, of 1; shardctl "
                       "checkpoints net says why"));
}

}  // namespace
}  // namespace shardstep
