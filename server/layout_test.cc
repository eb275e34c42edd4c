#include "shardstep/server/layout.h"

#include <gtest/gtest.h>

#include <utility>

#include "shardstep/server/column_layout.h"

namespace shardstep {
namespace {

TEST(LayoutTest, AStatePerRowIsKeptByEveryShardOfTheRowAndToldByTheFirst) {
  const auto layout = ColumnLayout(1);
  ASSERT_EQ(layout->local.size(), 3u);
  for (size_t local : {0, 1}) {
    const LocalTensor rows = layout->TensorOf(local, 1);
    EXPECT_EQ(rows.dtype, DType::kFloat64);
    EXPECT_EQ(rows.elements, 6);
    EXPECT_EQ(rows.bytes, 48);
    EXPECT_EQ(rows.speaks, local == 0);
    EXPECT_EQ(layout->TensorRegion(local, 1), (Region{{0, 0}, {6, 1}}));
  }
  const LocalTensor columns = layout->TensorOf(1, 2);
  EXPECT_EQ(columns.elements, 1);
  EXPECT_EQ(columns.bytes, 8);
  EXPECT_TRUE(columns.speaks);
  EXPECT_EQ(layout->TensorRegion(1, 2), (Region{{0, 4}, {1, 1}}));
  EXPECT_EQ(layout->TensorSizes(0, 1), (Shape{6, 1}));
  EXPECT_EQ(layout->TensorSizes(0, 2), (Shape{1, 5}));
  EXPECT_FALSE(ColumnLayout(0)->TensorOf(0, 1).speaks);
}

TEST(LayoutTest, ValuesAndOtherStatesAreTheShards) {
  const auto layout = ColumnLayout(1);
  for (uint32_t tensor : {0, 3}) {
    const LocalTensor info = layout->TensorOf(1, tensor);
    EXPECT_EQ(info.elements, 6);
    EXPECT_EQ(info.bytes, 48);
    EXPECT_TRUE(info.speaks);
    EXPECT_EQ(layout->TensorRegion(1, tensor), (Region{{0, 4}, {6, 1}}));
    EXPECT_EQ(layout->TensorSizes(0, tensor), (Shape{6, 5}));
  }
  EXPECT_EQ(layout->FindState("exp_avg"), 3u);
  EXPECT_EQ(layout->FindState("exp_avg_sq"), 0u);
  EXPECT_EQ(layout->FindState(""), 0u);
}

TEST(LayoutTest, NothingIsKeptOfAParameterWithoutElements) {
  const auto layout = ColumnLayout(1);
  for (uint32_t tensor : {0, 1, 2, 3}) {
    const LocalTensor info = layout->TensorOf(2, tensor);
    EXPECT_EQ(info.elements, 0);
    EXPECT_EQ(info.bytes, 0);
    EXPECT_TRUE(info.speaks);
  }
}

TEST(LayoutTest, FindsTheShardsOfAParameterThatAreHere) {
  const auto two = ColumnLayout(1);
  EXPECT_EQ(two->LocalShardsOf(0), (std::pair<size_t, size_t>(0, 2)));
  EXPECT_EQ(two->LocalShardsOf(1), (std::pair<size_t, size_t>(2, 3)));
  const auto one = ColumnLayout(0);
  EXPECT_EQ(one->LocalShardsOf(0), (std::pair<size_t, size_t>(0, 1)));
  // None, as of whatever a peer may name.
  for (const int parameter : {-1, 1, 2}) {
    const auto [first, end] = one->LocalShardsOf(parameter);
    EXPECT_EQ(first, end) << parameter;
  }
}

}  // namespace
}  // namespace shardstep
