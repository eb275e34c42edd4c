#include "shardstep/checkpoint/region_range.h"

#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/test_seed.h"

namespace shardstep {
namespace {

TEST(RegionRangeTest, CutsAtRowsWhereItCan) {
  const Region block = {{10, 20}, {4, 5}};
  EXPECT_EQ(RegionsOfRange(block, 0, 20), std::vector<Region>({block}));
  EXPECT_EQ(RegionsOfRange(block, 5, 15), std::vector<Region>({{{11, 20}, {2, 5}}}));
  EXPECT_EQ(RegionsOfRange(block, 6, 8), std::vector<Region>({{{11, 21}, {1, 2}}}));
  EXPECT_EQ(RegionsOfRange(block, 3, 17),
            std::vector<Region>({{{10, 23}, {1, 2}}, {{11, 20}, {2, 5}}, {{13, 20}, {1, 2}}}));
  EXPECT_TRUE(RegionsOfRange(block, 7, 7).empty());
  EXPECT_TRUE(RegionsOfRange({{0, 0}, {0, 5}}, 0, 0).empty());
  EXPECT_EQ(RegionsOfRange({{}, {}}, 0, 1), std::vector<Region>(1));
}

TEST(RegionRangeTest, IsTheRangeElementByElement) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 500; ++round) {
    Region block;
    int64_t elements = 1;
    for (size_t dims = random() % 5; dims > 0; --dims) {
      block.offsets.push_back(random() % 3);
      block.sizes.push_back(1 + random() % 4);
      elements *= block.sizes.back();
    }
    const int64_t begin = random() % (elements + 1);
    const int64_t end = begin + random() % (elements + 1 - begin);
    int64_t next = begin;
    const std::vector<Region> regions = RegionsOfRange(block, begin, end);
    for (const Region& region : regions) {
      ForEachRun(region, block, region, [&](int64_t place, int64_t, int64_t count) {
        EXPECT_EQ(place, next);
        next += count;
      });
    }
    EXPECT_EQ(next, end);
    EXPECT_LE(regions.size(), block.sizes.empty() ? 1 : 2 * block.sizes.size() - 1);
  }
}

}  // namespace
}  // namespace shardstep
