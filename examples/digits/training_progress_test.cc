#include "shardstep/examples/digits/training_progress.h"

#include "gtest/gtest.h"

namespace shardstep {
namespace {

TEST(ProgressLineTest, ShowsHowFarItIs) {
  EXPECT_EQ(ProgressLine(330, 660, 0.12345, 0.95, 411.7),
            "[################................]  50% step 330/660 loss 0.1235 accuracy 0.950 412 "
            "steps/s");
  EXPECT_EQ(
      ProgressLine(0, 4, 2.5, 0, 0),
      "[................................]   0% step 0/4 loss 2.5000 accuracy 0.000 0 steps/s");
  EXPECT_EQ(
      ProgressLine(4, 4, 0, 1, 10),
      "[################################] 100% step 4/4 loss 0.0000 accuracy 1.000 10 steps/s");
}

TEST(ProgressLineTest, IsFullWhereThereIsNothingToDo) {
  EXPECT_EQ(
      ProgressLine(0, 0, 0, 0, 0),
      "[################################] 100% step 0/0 loss 0.0000 accuracy 0.000 0 steps/s");
}

}  // namespace
}  // namespace shardstep
