#include "shardstep/sharding/sharding_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/sharding/shard_metadata.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::StartsWith;

constexpr auto kInvalidArgument = absl::StatusCode::kInvalidArgument;

std::vector<Placement> Ranks(int count) {
  std::vector<Placement> placements;
  for (int rank = 0; rank < count; ++rank) placements.push_back({rank, "cpu"});
  return placements;
}

// (offset, size) along dimension 0 of a tensor of `size` rows in `chunks` chunks.
std::vector<std::pair<int64_t, int64_t>> Chunks(int64_t size, int chunks) {
  const absl::StatusOr<std::vector<ShardMetadata>> shards =
      MakeShards(Chunk{0, Ranks(chunks)}, {size});
  EXPECT_OK(shards);
  std::vector<std::pair<int64_t, int64_t>> pieces;
  for (const ShardMetadata& shard : shards.value_or(std::vector<ShardMetadata>())) {
    pieces.emplace_back(shard.offsets[0], shard.sizes[0]);
  }
  return pieces;
}

// PyTorch's values, but for the offsets of empty chunks, which are clamped here.
TEST(ChunkTest, PyTorchsGoldenValues) {
  EXPECT_THAT(Chunks(11, 4), ElementsAre(Pair(0, 3), Pair(3, 3), Pair(6, 3), Pair(9, 2)));
  EXPECT_THAT(Chunks(12, 4), ElementsAre(Pair(0, 3), Pair(3, 3), Pair(6, 3), Pair(9, 3)));
  EXPECT_THAT(Chunks(13, 4), ElementsAre(Pair(0, 4), Pair(4, 4), Pair(8, 4), Pair(12, 1)));
  EXPECT_THAT(Chunks(5, 4), ElementsAre(Pair(0, 2), Pair(2, 2), Pair(4, 1), Pair(5, 0)));
  EXPECT_THAT(Chunks(21, 4), ElementsAre(Pair(0, 6), Pair(6, 6), Pair(12, 6), Pair(18, 3)));
  EXPECT_THAT(Chunks(1, 4), ElementsAre(Pair(0, 1), Pair(1, 0), Pair(1, 0), Pair(1, 0)));
  EXPECT_THAT(Chunks(0, 2), ElementsAre(Pair(0, 0), Pair(0, 0)));
  EXPECT_THAT(Chunks(7, 1), ElementsAre(Pair(0, 7)));
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  EXPECT_THAT(Chunks(kMax, 2), ElementsAre(Pair(0, kMax / 2 + 1), Pair(kMax / 2 + 1, kMax / 2)));
}

TEST(ChunkTest, CutsTheNamedDimensionInThePlacementsOrder) {
  const std::vector<Placement> placements = {{3, "cuda:1"}, {0, "cpu"}, {3, "cuda:1"}};
  for (int dim : {1, -2}) {
    EXPECT_THAT(MakeShards(Chunk{dim, placements}, {2, 7, 5}),
                IsOkAndHolds(ElementsAre(ShardMetadata{{0, 0, 0}, {2, 3, 5}, {3, "cuda:1"}},
                                         ShardMetadata{{0, 3, 0}, {2, 3, 5}, {0, "cpu"}},
                                         ShardMetadata{{0, 6, 0}, {2, 1, 5}, {3, "cuda:1"}})));
  }
}

TEST(ChunkTest, RefusesOtherDimensionsAndPlacements) {
  for (int dim : {2, -3, 1 << 30}) {
    EXPECT_THAT(
        MakeShards(Chunk{dim, Ranks(2)}, {4, 4}),
        StatusIs(kInvalidArgument, StartsWith(absl::StrCat("Invalid sharding dim: ", dim, ", "))));
  }
  EXPECT_THAT(MakeShards(Chunk{0, Ranks(1)}, {}),
              StatusIs(kInvalidArgument, StartsWith("Invalid sharding dim: 0")));
  EXPECT_THAT(MakeShards(Chunk{0, {}}, {4}),
              StatusIs(kInvalidArgument, "Chunk has no placements, expected at least one"));
  EXPECT_THAT(MakeShards(Chunk{0, {{-2, "cpu"}}}, {4}),
              StatusIs(kInvalidArgument, StartsWith("Invalid rank: -2")));
  EXPECT_THAT(MakeShards(Chunk{0, Ranks(kMaxShardsPerParameter + 1)}, {4}),
              StatusIs(kInvalidArgument, "sharding spec has 16385 shards, expected at most 16384"));
  EXPECT_THAT(MakeShards(Chunk{0, Ranks(2)}, {4, -4}),
              StatusIs(kInvalidArgument, HasSubstr("negative size")));
}

TEST(WholeTest, IsOneShard) {
  EXPECT_THAT(MakeShards(Whole{2}, {3, 4}),
              IsOkAndHolds(ElementsAre(ShardMetadata{{0, 0}, {3, 4}, {2, "cpu"}})));
  EXPECT_THAT(MakeShards(Whole{1, "cuda:0"}, {}),
              IsOkAndHolds(ElementsAre(ShardMetadata{{}, {}, {1, "cuda:0"}})));
  EXPECT_THAT(MakeShards(Whole{-1}, {3}), StatusIs(kInvalidArgument));
}

TEST(EnumerableTest, KeepsOrderAndClampsEmptyShards) {
  // Beyond the end, as PyTorch's own chunks of 5 rows over 4 ranks.
  const std::vector<ShardMetadata> shards = {
      {{4, 0}, {1, 3}, {2, "cpu"}}, {{6, 0}, {0, 3}, {3, "cpu"}}, {{0, 0}, {4, 3}, {0, "cpu"}}};
  EXPECT_THAT(
      MakeShards(Enumerable{shards}, {5, 3}),
      IsOkAndHolds(ElementsAre(shards[0], ShardMetadata{{5, 0}, {0, 3}, {3, "cpu"}}, shards[2])));
}

TEST(EnumerableTest, RefusesOverlapGapAndNothing) {
  EXPECT_THAT(MakeShards(Enumerable{}, {5}),
              StatusIs(kInvalidArgument, "Empty shard list provided: []"));
  EXPECT_THAT(MakeShards(Enumerable{{{{0}, {2}, {}}, {{3}, {2}, {}}}}, {5}),
              StatusIs(kInvalidArgument, HasSubstr("do not cover the entire tensor")));
  // Equal volume: only the overlap tells.
  EXPECT_THAT(MakeShards(Enumerable{{{{0}, {3}, {}}, {{2}, {2}, {}}}}, {5}),
              StatusIs(kInvalidArgument, HasSubstr("overlap")));
  EXPECT_THAT(MakeShards(Enumerable{{{{0}, {6}, {}}}}, {5}),
              StatusIs(kInvalidArgument, HasSubstr("exceeds tensor dim: 5")));
}

TEST(GridTest, PyTorchsExampleOfFourBlocks) {
  ASSERT_OK_AND_ASSIGN(const Enumerable grid, Grid({10, 10}, {2, 2}, Ranks(4)));
  ASSERT_EQ(grid.shards.size(), 4);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(grid.shards[rank],
              (ShardMetadata{{rank / 2 * 5, rank % 2 * 5}, {5, 5}, {rank, "cpu"}}));
  }
  EXPECT_THAT(MakeShards(grid, {10, 10}), IsOkAndHolds(grid.shards));
}

TEST(GridTest, CutsUnevenAndEmptyBlocks) {
  ASSERT_OK_AND_ASSIGN(const Enumerable grid, Grid({3, 5, 2}, {2, 4, 1}, Ranks(8)));
  EXPECT_THAT(grid.shards[1], (ShardMetadata{{0, 2, 0}, {2, 2, 2}, {1, "cpu"}}));
  EXPECT_THAT(grid.shards[6], (ShardMetadata{{2, 4, 0}, {1, 1, 2}, {6, "cpu"}}));
  EXPECT_THAT(grid.shards[7], (ShardMetadata{{2, 5, 0}, {1, 0, 2}, {7, "cpu"}}));
  EXPECT_OK(MakeShards(grid, {3, 5, 2}));
  ASSERT_OK_AND_ASSIGN(const Enumerable point, Grid({}, {}, Ranks(1)));
  EXPECT_THAT(MakeShards(point, {}), IsOkAndHolds(point.shards));
}

TEST(GridTest, RefusesOtherNumbersOfBlocks) {
  EXPECT_THAT(
      Grid({4, 4}, {2, 2}, Ranks(3)),
      StatusIs(kInvalidArgument, "grid [2,2] has 4 blocks, expected one for each of 3 placements"));
  EXPECT_THAT(Grid({4, 4}, {0, 2}, {}), StatusIs(kInvalidArgument));
  EXPECT_THAT(Grid({4, 4}, {-1, -1}, Ranks(1)), StatusIs(kInvalidArgument));
  EXPECT_THAT(Grid({4, 4}, {2}, Ranks(2)),
              StatusIs(kInvalidArgument, "grid [2] has 1 dimensions, the tensor has 2"));
  EXPECT_THAT(Grid({-4}, {2}, Ranks(2)), StatusIs(kInvalidArgument));
  EXPECT_THAT(Grid({4, 4}, {1000, 1000}, Ranks(1'000'000)),
              StatusIs(kInvalidArgument, HasSubstr("at most 16384")));
}

}  // namespace
}  // namespace shardstep
