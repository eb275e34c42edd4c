#include "shardstep/sharding/shard_metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "shardstep/sharding/shape.h"
#include "shardstep/sharding/test_seed.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

constexpr auto kInvalidArgument = absl::StatusCode::kInvalidArgument;
constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

ShardMetadata Shard(Shape offsets, Shape sizes, int server_rank = 0) {
  return {std::move(offsets), std::move(sizes), {server_rank, "cpu"}};
}

TEST(PlacementTest, ParsesAndPrints) {
  EXPECT_THAT(ParsePlacement("rank:2/cpu"), IsOkAndHolds(Placement{2, "cpu"}));
  EXPECT_THAT(ParsePlacement("rank:0/cuda:1"), IsOkAndHolds(Placement{0, "cuda:1"}));
  EXPECT_THAT(ParsePlacement("rank:13"), IsOkAndHolds(Placement{13, "cpu"}));
  EXPECT_EQ(ToString(Placement{0, "cuda:1"}), "rank:0/cuda:1");
}

TEST(PlacementTest, RefusesOtherTexts) {
  for (const char* text : {"",
                           "rank",
                           "rank:",
                           "rank:/cpu",
                           "rank:-1/cpu",
                           "rank:+1/cpu",
                           "rank: 1/cpu",
                           "rank:x/cpu",
                           "rank:1/",
                           "rank:1/cpu/cpu",
                           "rank:1:2/cpu",
                           "rank:1/cuda:",
                           "rank:1/cuda:01",
                           "rank:1/CUDA:0",
                           "rank:1/cuda:0:1",
                           "rank:99999999999/cpu",
                           "trainer0/cpu",
                           "cpu",
                           "cuda:0",
                           "rank:0/cpu ",
                           "Rank:0/cpu"}) {
    EXPECT_THAT(ParsePlacement(text),
                StatusIs(kInvalidArgument,
                         StartsWith(absl::StrCat("Could not parse remote_device: ", text,
                                                 ". The valid format is '<workername>/<device>' or "
                                                 "'rank:<rank>/<device>' or '<device>'"))));
  }
}

TEST(ShardMetadataTest, PrintsComparesAndHashes) {
  const ShardMetadata shard = Shard({6, 0}, {3, 8}, 1);
  EXPECT_EQ(ToString(shard),
            "ShardMetadata(shard_offsets=[6,0], shard_sizes=[3,8], placement=rank:1/cpu)");
  EXPECT_EQ(shard, Shard({6, 0}, {3, 8}, 1));
  EXPECT_NE(shard, Shard({6, 1}, {3, 8}, 1));
  EXPECT_NE(shard, Shard({6, 0}, {3, 7}, 1));
  EXPECT_NE(shard, Shard({6, 0}, {3, 8}, 2));
  EXPECT_NE(shard, (ShardMetadata{{6, 0}, {3, 8}, {1, "cuda:0"}}));
  const absl::flat_hash_set<ShardMetadata> set = {
      shard, Shard({6, 0}, {3, 8}, 1), Shard({6, 1}, {3, 8}, 1), Shard({6, 0}, {3, 7}, 1),
      Shard({6, 0}, {3, 8}, 2)};
  EXPECT_EQ(set.size(), 4);
}

TEST(ShardMetadataTest, ValidatesInPyTorchsWords) {
  EXPECT_OK(ValidateShardMetadata(Shard({}, {})));
  EXPECT_OK(ValidateShardMetadata(Shard({6, 0}, {0, 8})));
  EXPECT_THAT(ValidateShardMetadata(Shard({0}, {1, 2})),
              StatusIs(kInvalidArgument,
                       "shard_offsets and shard_sizes should have the same number of elements, "
                       "found 1 and 2 elements respectively"));
  EXPECT_THAT(ValidateShardMetadata(Shard({-1, 0}, {1, 2})),
              StatusIs(kInvalidArgument, StartsWith("shard_offsets should be >=0")));
  EXPECT_THAT(ValidateShardMetadata(Shard({1, 0}, {1, -2})),
              StatusIs(kInvalidArgument, StartsWith("shard_sizes should be >= 0")));
  EXPECT_THAT(ValidateShardMetadata(Shard({kMax}, {1})),
              StatusIs(kInvalidArgument, HasSubstr("sum exceeds 64 bits")));
  EXPECT_THAT(ValidateShardMetadata(Shard({0, 0}, {kMax, 2})),
              StatusIs(kInvalidArgument, HasSubstr("number of elements exceeds 64 bits")));
  EXPECT_THAT(ValidateShardMetadata(Shard(Shape(9, 0), Shape(9, 1))),
              StatusIs(kInvalidArgument, HasSubstr("at most 8")));
  EXPECT_THAT(ValidateShardMetadata(Shard({0}, {1}, -1)),
              StatusIs(kInvalidArgument, StartsWith("Invalid rank: -1")));
  EXPECT_THAT(ValidateShardMetadata({{0}, {1}, {0, "gpu 1"}}),
              StatusIs(kInvalidArgument, StartsWith("Could not parse remote_device")));
}

TEST(NonOverlappingTest, AcceptsShardsThatMeetNowhere) {
  EXPECT_OK(ValidateNonOverlapping({}));
  EXPECT_OK(ValidateNonOverlapping({Shard({0, 0}, {5, 5})}));
  // Along one dimension, in any order, with a gap.
  EXPECT_OK(ValidateNonOverlapping({Shard({5, 0}, {5, 5}), Shard({0, 0}, {3, 5})}));
  // A 2x2 grid.
  EXPECT_OK(ValidateNonOverlapping({Shard({0, 0}, {5, 5}), Shard({0, 5}, {5, 5}),
                                    Shard({5, 0}, {5, 5}), Shard({5, 5}, {5, 5})}));
  // Empty shards: at zero, clamped to the end, beyond the end, in the middle of another.
  EXPECT_OK(ValidateNonOverlapping({Shard({0}, {0}), Shard({0}, {0})}));
  EXPECT_OK(ValidateNonOverlapping(
      {Shard({0, 0}, {5, 2}), Shard({5, 0}, {0, 2}), Shard({5, 0}, {0, 2})}));
  EXPECT_OK(ValidateNonOverlapping({Shard({0}, {2}), Shard({6}, {0}), Shard({1}, {0})}));
}

TEST(NonOverlappingTest, NamesTwoShardsThatOverlap) {
  EXPECT_THAT(
      ValidateNonOverlapping({Shard({0, 0}, {5, 5}, 0), Shard({0, 5}, {5, 5}, 1),
                              Shard({4, 0}, {5, 5}, 2), Shard({5, 5}, {5, 5}, 3)}),
      StatusIs(kInvalidArgument,
               "Shards ShardMetadata(shard_offsets=[0,0], shard_sizes=[5,5], placement=rank:0/cpu) "
               "and ShardMetadata(shard_offsets=[4,0], shard_sizes=[5,5], placement=rank:2/cpu) "
               "overlap"));
  const auto overlap = StatusIs(kInvalidArgument, testing::EndsWith("overlap"));
  EXPECT_THAT(ValidateNonOverlapping({Shard({2}, {4}), Shard({0}, {3})}), overlap);
  EXPECT_THAT(ValidateNonOverlapping({Shard({1, 1}, {2, 2}), Shard({1, 1}, {2, 2})}), overlap);
  EXPECT_THAT(ValidateNonOverlapping({Shard({}, {}), Shard({}, {})}), overlap);
  // Not neighbours in the order of their begins.
  EXPECT_THAT(ValidateNonOverlapping({Shard({0, 0}, {9, 1}), Shard({1, 1}, {1, 1}),
                                      Shard({2, 2}, {1, 1}), Shard({3, 0}, {1, 1})}),
              overlap);
  EXPECT_THAT(ValidateNonOverlapping({Shard({0, 0}, {5, 5}), Shard({0}, {5})}),
              StatusIs(kInvalidArgument, "Found inconsistent ranks for shards: 2 and 1"));
}

// 1 - 3 dimensional random boxes, with the pairwise definition as the oracle.
TEST(NonOverlappingTest, AgreesWithPairwiseComparison) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  std::mt19937 random(seed);
  int disjoint = 0;
  for (int round = 0; round < 3000; ++round) {
    const size_t dims = 1 + random() % 3;
    std::vector<ShardMetadata> shards(1 + random() % 5);
    for (ShardMetadata& shard : shards) {
      for (size_t d = 0; d < dims; ++d) {
        shard.offsets.push_back(random() % 6);
        shard.sizes.push_back(random() % 4);
      }
    }
    bool overlap = false;
    for (size_t i = 0; i < shards.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        bool common = true;
        for (size_t d = 0; d < dims; ++d) {
          const int64_t begin = std::max(shards[i].offsets[d], shards[j].offsets[d]);
          const int64_t end = std::min(shards[i].offsets[d] + shards[i].sizes[d],
                                       shards[j].offsets[d] + shards[j].sizes[d]);
          common = common && begin < end;
        }
        overlap = overlap || common;
      }
    }
    disjoint += overlap ? 0 : 1;
    ASSERT_EQ(ValidateNonOverlapping(shards).ok(), !overlap) << "round " << round;
  }
  EXPECT_GT(disjoint, 100);
  EXPECT_LT(disjoint, 2900);
}

TEST(NonOverlappingTest, ManyShardsInRandomOrder) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  std::vector<int> order(10'000);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(seed));
  std::vector<ShardMetadata> shards;
  for (int i : order) shards.push_back(Shard({0, 3 * i}, {8, 3}));
  EXPECT_OK(ValidateNonOverlapping(shards));
  EXPECT_OK(CheckTensor(shards, {8, 30'000}));
  const size_t moved = std::find(order.begin(), order.end(), 5'000) - order.begin();
  ++shards[moved].offsets[1];
  EXPECT_THAT(ValidateNonOverlapping(shards),
              StatusIs(kInvalidArgument, AllOf(HasSubstr("shard_offsets=[0,15001]"),
                                               HasSubstr("shard_offsets=[0,15003]"))));
}

TEST(CheckTensorTest, AcceptsExactCover) {
  EXPECT_OK(CheckTensor({Shard({}, {})}, {}));
  EXPECT_OK(CheckTensor({Shard({0, 0}, {0, 4})}, {0, 4}));
  EXPECT_OK(CheckTensor({Shard({0, 0}, {5, 10}), Shard({5, 0}, {5, 10})}, {10, 10}));
  // PyTorch's chunks of 5 rows over 4 placements, not clamped and clamped.
  for (int64_t last : {6, 5}) {
    EXPECT_OK(CheckTensor({Shard({0, 0}, {2, 3}), Shard({2, 0}, {2, 3}), Shard({4, 0}, {1, 3}),
                           Shard({last, 0}, {0, 3})},
                          {5, 3}));
  }
}

TEST(CheckTensorTest, FailsInPyTorchsWords) {
  EXPECT_THAT(CheckTensor({}, {5}), StatusIs(kInvalidArgument, "Empty shard list provided: []"));
  EXPECT_THAT(CheckTensor({Shard({0, 0}, {5, 5})}, {5}),
              StatusIs(kInvalidArgument, "Rank of tensor is 1, but shards rank is 2"));
  EXPECT_THAT(CheckTensor({Shard({0}, {3}), Shard({3}, {3}, 1)}, {5}),
              StatusIs(kInvalidArgument,
                       "Shard offset 3 and length 3 exceeds tensor dim: 5 for shard "
                       "ShardMetadata(shard_offsets=[3], shard_sizes=[3], placement=rank:1/cpu)"));
  // Empty, but in another dimension than the one that it exceeds.
  EXPECT_THAT(CheckTensor({Shard({0, 0}, {5, 3}), Shard({5, 0}, {0, 4})}, {5, 3}),
              StatusIs(kInvalidArgument, StartsWith("Shard offset 0 and length 4 exceeds")));
  const auto gap = [](int shards, int tensor) {
    return StatusIs(
        kInvalidArgument,
        absl::StrCat("Total volume of shards: ", shards, " does not match tensor volume: ", tensor,
                     ", in other words all the individual shards do not cover the entire tensor"));
  };
  EXPECT_THAT(CheckTensor({Shard({0, 0}, {2, 3}), Shard({3, 0}, {2, 3})}, {5, 3}), gap(12, 15));
  EXPECT_THAT(CheckTensor({Shard({0}, {5}), Shard({0}, {5})}, {5}), gap(10, 5));
  EXPECT_THAT(CheckTensor({Shard({0}, {kMax}), Shard({0}, {kMax})}, {kMax - 1}),
              StatusIs(kInvalidArgument, HasSubstr("exceeds tensor dim")));
  // The sum itself exceeds 64 bits.
  EXPECT_THAT(CheckTensor({Shard({0}, {kMax - 1}), Shard({0}, {kMax - 1})}, {kMax - 1}),
              StatusIs(kInvalidArgument, StartsWith("Total volume of shards: ")));
  EXPECT_THAT(CheckTensor({Shard({0}, {5})}, {-5}), StatusIs(kInvalidArgument));
}

TEST(CheckPlacementsTest, NamesShardRankAndServers) {
  const std::vector<ShardMetadata> shards = {Shard({0}, {2}, 0), Shard({2}, {2}, 3)};
  EXPECT_OK(CheckPlacements(shards, 4));
  EXPECT_THAT(CheckPlacements(shards, 3),
              StatusIs(kInvalidArgument,
                       AllOf(HasSubstr("shard_offsets=[2]"), HasSubstr("Invalid rank: 3,"),
                             HasSubstr("below 3, the number of servers"))));
}

}  // namespace
}  // namespace shardstep
