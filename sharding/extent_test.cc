#include "shardstep/sharding/extent.h"

#include <vector>

#include "gtest/gtest.h"
#include "shardstep/sharding/overlap.h"

namespace shardstep {
namespace {

constexpr Extent kAll[] = {Extent::kElement, Extent::kRow, Extent::kColumn, Extent::kMatrix,
                           Extent::kTensor};

TEST(ExtentTest, CountsRowsAndColumnsInTheLastTwoDimensions) {
  const Shape sizes = {4, 3, 2};
  EXPECT_EQ(ExtentSizes(Extent::kElement, sizes), (Shape{4, 3, 2}));
  EXPECT_EQ(ExtentSizes(Extent::kRow, sizes), (Shape{4, 3, 1}));
  EXPECT_EQ(ExtentSizes(Extent::kColumn, sizes), (Shape{4, 1, 2}));
  EXPECT_EQ(ExtentSizes(Extent::kMatrix, sizes), (Shape{4, 1, 1}));
  EXPECT_EQ(ExtentSizes(Extent::kTensor, sizes), (Shape{1, 1, 1}));
  EXPECT_EQ(ExtentSizes(Extent::kRow, {5}), (Shape{5}));
  EXPECT_EQ(ExtentSizes(Extent::kMatrix, {5}), (Shape{1}));
  EXPECT_EQ(ExtentSizes(Extent::kTensor, {}), (Shape{}));
}

TEST(ExtentTest, KeepsNothingOfNothing) {
  EXPECT_EQ(ExtentSizes(Extent::kRow, {3, 0}), (Shape{3, 0}));
  EXPECT_EQ(ExtentSizes(Extent::kTensor, {0}), (Shape{0}));
}

TEST(ExtentTest, RegionsOfOneRowShareItsPartAndOneSpeaksForThem) {
  const Region left{{2, 0}, {3, 4}};
  const Region right{{2, 4}, {3, 6}};
  EXPECT_EQ(ExtentRegion(Extent::kRow, left), (Region{{2, 0}, {3, 1}}));
  EXPECT_EQ(ExtentRegion(Extent::kRow, right), (Region{{2, 0}, {3, 1}}));
  EXPECT_TRUE(IsFirstOfExtent(Extent::kRow, left));
  EXPECT_FALSE(IsFirstOfExtent(Extent::kRow, right));
  EXPECT_EQ(ExtentRegion(Extent::kColumn, right), (Region{{0, 4}, {1, 6}}));
  EXPECT_FALSE(IsFirstOfExtent(Extent::kColumn, right));
}

TEST(ExtentTest, TheFirstOnesCoverWhatIsKeptExactlyOnce) {
  // Rows are cut elsewhere on the left than on the right.
  const std::vector<Region> sharding = {{{0, 0}, {2, 3}}, {{2, 0}, {4, 3}}, {{6, 0}, {1, 3}},
                                        {{0, 3}, {5, 4}}, {{5, 3}, {2, 4}}, {{0, 7}, {7, 0}}};
  for (const Extent extent : kAll) {
    const Shape sizes = ExtentSizes(extent, {7, 7});
    std::vector<Region> first;
    int64_t covered = 0;
    for (const Region& region : sharding) {
      const Region part = ExtentRegion(extent, region);
      if (!IsFirstOfExtent(extent, region) || IsEmpty(part)) continue;
      first.push_back(part);
      covered += part.sizes[0] * part.sizes[1];
    }
    EXPECT_EQ(FindOverlappingPair(first), std::nullopt) << ExtentName(extent);
    EXPECT_EQ(covered, sizes[0] * sizes[1]) << ExtentName(extent);
  }
}

TEST(ExtentTest, NamesGoBothWays) {
  for (const Extent extent : kAll) EXPECT_EQ(*ParseExtent(ExtentName(extent)), extent);
  EXPECT_EQ(ParseExtent("diagonal").status().message(),
            "extent \"diagonal\": expected element, row, column, matrix or tensor");
}

}  // namespace
}  // namespace shardstep
