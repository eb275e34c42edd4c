#include "shardstep/examples/digits/batch_order.h"

#include <numeric>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<int64_t> FirstRows(int64_t count) {
  std::vector<int64_t> rows(static_cast<size_t>(count));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

// The rows of all trainers, in their order.
std::vector<int64_t> WholeBatch(const BatchOrder& order, uint64_t version) {
  std::vector<int64_t> rows;
  for (int rank = 0; rank < order.trainers(); ++rank) {
    const std::vector<int64_t> part = order.Rows(version, rank);
    rows.insert(rows.end(), part.begin(), part.end());
  }
  return rows;
}

TEST(ShuffledTest, IsTheSameOnEveryMachine) {
  EXPECT_THAT(Shuffled(FirstRows(10), 1998), ElementsAre(5, 6, 7, 3, 4, 0, 2, 1, 9, 8));
}

TEST(ShuffledTest, KeepsEveryRow) {
  EXPECT_THAT(Shuffled(FirstRows(100), 7), ::testing::UnorderedElementsAreArray(FirstRows(100)));
  EXPECT_NE(Shuffled(FirstRows(100), 7), Shuffled(FirstRows(100), 8));
}

TEST(SplitRowsTest, FourFifthsTrainAndTheRestTests) {
  const RowSplit split = SplitRows(1797, 1998);
  EXPECT_EQ(split.train.size(), 1437u);
  EXPECT_EQ(split.test.size(), 360u);
  std::set<int64_t> all(split.train.begin(), split.train.end());
  all.insert(split.test.begin(), split.test.end());
  EXPECT_EQ(all.size(), 1797u);
  EXPECT_EQ(split.test, SplitRows(1797, 1998).test);
}

TEST(BatchOrderTest, IsAFunctionOfTheVersionAlone) {
  ASSERT_OK_AND_ASSIGN(const BatchOrder order, BatchOrder::Create(FirstRows(100), 8, 2, 1));
  ASSERT_OK_AND_ASSIGN(const BatchOrder other, BatchOrder::Create(FirstRows(100), 8, 2, 1));
  // Backwards, and on another object: nothing is remembered from call to call.
  for (uint64_t version = 40; version-- > 0;)
    EXPECT_EQ(WholeBatch(order, version), WholeBatch(other, version));
  EXPECT_EQ(WholeBatch(order, 3), WholeBatch(other, 3));
}

TEST(BatchOrderTest, AnEpochTakesARowAtMostOnceAndLeavesTheRemainderOut) {
  ASSERT_OK_AND_ASSIGN(const BatchOrder order, BatchOrder::Create(FirstRows(100), 8, 2, 1));
  ASSERT_EQ(order.batches_per_epoch(), 12);
  std::set<int64_t> seen;
  for (uint64_t version = 0; version < 12; ++version) {
    const std::vector<int64_t> rows = WholeBatch(order, version);
    EXPECT_EQ(rows.size(), 8u);
    seen.insert(rows.begin(), rows.end());
  }
  EXPECT_EQ(seen.size(), 96u);
}

TEST(BatchOrderTest, EveryEpochHasItsOwnOrder) {
  ASSERT_OK_AND_ASSIGN(const BatchOrder order, BatchOrder::Create(FirstRows(100), 8, 2, 1));
  EXPECT_NE(WholeBatch(order, 0), WholeBatch(order, 12));
  EXPECT_NE(WholeBatch(order, 11), WholeBatch(order, 12));
}

TEST(BatchOrderTest, TheTrainersPartsMakeTheBatchOfOne) {
  ASSERT_OK_AND_ASSIGN(const BatchOrder two, BatchOrder::Create(FirstRows(100), 8, 2, 1));
  ASSERT_OK_AND_ASSIGN(const BatchOrder one, BatchOrder::Create(FirstRows(100), 8, 1, 1));
  for (uint64_t version = 0; version < 30; ++version) {
    EXPECT_EQ(WholeBatch(two, version), one.Rows(version, 0));
    EXPECT_EQ(two.Rows(version, 1).size(), 4u);
  }
}

TEST(BatchOrderTest, RefusesBatchesThatDoNotDivide) {
  EXPECT_THAT(BatchOrder::Create(FirstRows(10), 9, 2, 1),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "batch size: expected a multiple of 2 trainers, got 9"));
  EXPECT_THAT(BatchOrder::Create(FirstRows(10), 12, 2, 1),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("at most the number of rows, 10, got 12")));
  EXPECT_THAT(BatchOrder::Create(FirstRows(10), 4, 0, 1),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("trainers")));
}

}  // namespace
}  // namespace shardstep
