#include "shardstep/sharding/overlap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/sharding/region.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/sharding/shard_metadata.h"
#include "shardstep/sharding/sharding_spec.h"
#include "shardstep/sharding/test_seed.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Stretch = std::tuple<int64_t, int64_t, int64_t>;  // offset in a, offset in b, count

std::vector<Stretch> Runs(const Region& part, const Region& a, const Region& b) {
  std::vector<Stretch> runs;
  ForEachRun(part, a, b, [&](int64_t in_a, int64_t in_b, int64_t count) {
    runs.emplace_back(in_a, in_b, count);
  });
  return runs;
}

TEST(RegionTest, Intersects) {
  EXPECT_EQ(RegionOf({{6, 0}, {3, 8}, {1, "cpu"}}), (Region{{6, 0}, {3, 8}}));
  EXPECT_EQ(Intersect({{0, 2}, {4, 4}}, {{3, 0}, {9, 3}}), (Region{{3, 2}, {1, 1}}));
  EXPECT_EQ(Intersect({{0, 0}, {4, 4}}, {{4, 0}, {4, 4}}), std::nullopt);
  EXPECT_EQ(Intersect({{0}, {4}}, {{2}, {0}}), std::nullopt);
  EXPECT_EQ(Intersect({{}, {}}, {{}, {}}), (Region{{}, {}}));
}

TEST(ForEachRunTest, MergesRunsThatTouchInBothBlocks) {
  // The same rows of two blocks: one run.
  EXPECT_THAT(Runs({{2, 0}, {3, 4}}, {{0, 0}, {6, 4}}, {{2, 0}, {3, 4}}),
              ElementsAre(Stretch(8, 0, 12)));
  // Full rows in one block only.
  EXPECT_THAT(Runs({{2, 0}, {2, 4}}, {{2, 0}, {2, 4}}, {{0, 0}, {6, 5}}),
              ElementsAre(Stretch(0, 10, 4), Stretch(4, 15, 4)));
  // Columns.
  EXPECT_THAT(Runs({{0, 1}, {2, 2}}, {{0, 0}, {2, 4}}, {{0, 1}, {2, 2}}),
              ElementsAre(Stretch(1, 0, 2), Stretch(5, 2, 2)));
  // Two inner dimensions are full, the one before them is not, the first is cut, too.
  EXPECT_THAT(Runs({{1, 1, 0, 0}, {2, 2, 2, 3}}, {{0, 0, 0, 0}, {3, 4, 2, 3}},
                   {{1, 0, 0, 0}, {2, 3, 2, 3}}),
              ElementsAre(Stretch(30, 6, 12), Stretch(54, 24, 12)));
  EXPECT_THAT(Runs({{}, {}}, {{}, {}}, {{}, {}}), ElementsAre(Stretch(0, 0, 1)));
  EXPECT_THAT(Runs({{2, 0}, {0, 4}}, {{0, 0}, {6, 4}}, {{2, 0}, {3, 4}}), IsEmpty());
}

TEST(CoversTest, WantsEveryElementOnce) {
  const Region whole = {{2, 0}, {4, 4}};
  EXPECT_TRUE(Covers({whole}, whole));
  EXPECT_TRUE(Covers({{{2, 0}, {4, 1}}, {{2, 1}, {4, 3}}}, whole));
  EXPECT_TRUE(Covers({{{9, 9}, {0, 1}}, {{2, 1}, {4, 3}}, {{2, 0}, {4, 1}}}, whole));
  EXPECT_FALSE(Covers({{{2, 0}, {4, 1}}, {{2, 2}, {4, 2}}}, whole)) << "a gap";
  EXPECT_FALSE(Covers({{{2, 0}, {4, 3}}, {{2, 2}, {4, 1}}}, whole)) << "twice and a gap";
  EXPECT_FALSE(Covers({{{2, 0}, {4, 3}}, {{2, 2}, {4, 2}}}, whole)) << "twice";
  EXPECT_FALSE(Covers({whole, {{2, 0}, {1, 1}}}, whole)) << "twice";
  EXPECT_FALSE(Covers({{{1, 0}, {4, 4}}}, whole)) << "outside";
  EXPECT_FALSE(Covers({{{2}, {4}}}, {{2, 0}, {4, 1}})) << "other dimensions";
  EXPECT_FALSE(Covers({}, whole));
  EXPECT_TRUE(Covers({}, {{0}, {0}}));
}

class RandomShardings {
 public:
  explicit RandomShardings(int seed) : random_(seed) {}

  int64_t Below(int64_t limit) { return random_() % limit; }

  Shape NextShape() {
    Shape sizes(Below(5));
    for (int64_t& size : sizes) size = Below(12) == 0 ? 0 : 1 + Below(9);
    return sizes;
  }

  std::vector<Region> NextSharding(const Shape& sizes) {
    const int64_t kind = sizes.empty() ? 0 : Below(4);
    if (kind == 0) return Regions(Whole{0}, sizes);
    if (kind == 1) {
      return Regions(
          Chunk{static_cast<int>(Below(sizes.size())), std::vector<Placement>(1 + Below(12))},
          sizes);
    }
    if (kind == 2) {
      Shape grid(sizes.size());
      int64_t blocks = 1;
      for (int64_t& cuts : grid) blocks *= cuts = 1 + Below(4);
      return Regions(Grid(sizes, grid, std::vector<Placement>(blocks)).value(), sizes);
    }
    std::vector<Region> regions;
    Cut({Shape(sizes.size(), 0), sizes}, 4, &regions);
    std::shuffle(regions.begin(), regions.end(), random_);
    return regions;
  }

 private:
  static std::vector<Region> Regions(const ShardingSpec& spec, const Shape& sizes) {
    std::vector<Region> regions;
    const std::vector<ShardMetadata> shards = MakeShards(spec, sizes).value();
    for (const ShardMetadata& shard : shards) regions.push_back(RegionOf(shard));
    return regions;
  }

  // Cuts in two at a random place, again and again: blocks that line up nowhere, some empty.
  void Cut(const Region& block, int depth, std::vector<Region>* regions) {
    if (depth == 0 || Below(5) == 0) {
      regions->push_back(block);
      return;
    }
    const size_t dim = Below(block.sizes.size());
    const int64_t at = Below(block.sizes[dim] + 1);
    Region low = block;
    Region high = block;
    low.sizes[dim] = at;
    high.offsets[dim] += at;
    high.sizes[dim] -= at;
    Cut(low, depth - 1, regions);
    Cut(high, depth - 1, regions);
  }

  std::mt19937 random_;
};

// The values that `block` holds of a tensor whose elements are 1, 2, 3, ... in row-major order.
std::vector<int64_t> Iota(const Region& block, const Shape& tensor) {
  std::vector<int64_t> values = {0};
  for (size_t d = 0; d < tensor.size(); ++d) {
    std::vector<int64_t> next;
    for (int64_t value : values) {
      for (int64_t i = 0; i < block.sizes[d]; ++i) {
        next.push_back(value * tensor[d] + block.offsets[d] + i);
      }
    }
    values = std::move(next);
  }
  for (int64_t& value : values) ++value;
  return values;
}

TEST(ReshardTest, MovesEveryElementFromAnyShardingToAnyOther) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  RandomShardings random(seed);
  int64_t moved = 0;
  for (int round = 0; round < 1000; ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round));
    const Shape sizes = random.NextShape();
    const std::vector<Region> from = random.NextSharding(sizes);
    const std::vector<Region> to = random.NextSharding(sizes);
    ASSERT_TRUE(Covers(from, {Shape(sizes.size(), 0), sizes}));
    std::vector<std::vector<int64_t>> sources;
    std::vector<std::vector<int64_t>> targets;
    for (const Region& block : from) sources.push_back(Iota(block, sizes));
    for (const Region& block : to) targets.emplace_back(Iota(block, sizes).size(), 0);

    std::vector<std::pair<size_t, size_t>> order;
    for (const Overlap& overlap : FindOverlaps(from, to)) {
      order.emplace_back(overlap.to, overlap.from);
      const std::vector<int64_t>& source = sources[overlap.from];
      std::vector<int64_t>& target = targets[overlap.to];
      int64_t source_end = -1;
      int64_t target_end = -1;
      ForEachRun(overlap.part, from[overlap.from], to[overlap.to],
                 [&](int64_t source_offset, int64_t target_offset, int64_t count) {
                   EXPECT_FALSE(source_offset == source_end && target_offset == target_end)
                       << "two runs that touch in both blocks";
                   for (int64_t i = 0; i < count; ++i) {
                     EXPECT_EQ(target.at(target_offset + i), 0) << "written twice";
                     target.at(target_offset + i) = source.at(source_offset + i);
                   }
                   source_end = source_offset + count;
                   target_end = target_offset + count;
                   moved += count;
                 });
    }
    EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
    for (size_t i = 0; i < to.size(); ++i) ASSERT_EQ(targets[i], Iota(to[i], sizes));
  }
  EXPECT_GT(moved, 10'000);
}

// The search along one dimension must find what comparing all pairs finds, overlapping or not.
TEST(ReshardTest, FindsTheOverlapsOfAnyRegions) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  RandomShardings random(seed);
  for (int round = 0; round < 1000; ++round) {
    const size_t dims = 1 + random.Below(3);
    const auto regions = [&] {
      std::vector<Region> result(random.Below(8));
      for (Region& region : result) {
        for (size_t d = 0; d < dims; ++d) {
          region.offsets.push_back(random.Below(9));
          region.sizes.push_back(random.Below(5));
        }
      }
      return result;
    };
    const std::vector<Region> from = regions();
    const std::vector<Region> to = regions();
    std::vector<std::tuple<size_t, size_t, InlineShape>> expected;
    for (size_t t = 0; t < to.size(); ++t) {
      for (size_t f = 0; f < from.size(); ++f) {
        const std::optional<Region> part = Intersect(from[f], to[t]);
        if (part.has_value()) expected.emplace_back(f, t, part->offsets);
      }
    }
    std::vector<std::tuple<size_t, size_t, InlineShape>> found;
    for (const Overlap& overlap : FindOverlaps(from, to)) {
      found.emplace_back(overlap.from, overlap.to, overlap.part.offsets);
    }
    ASSERT_EQ(found, expected) << "round " << round;
  }
}

}  // namespace
}  // namespace shardstep
