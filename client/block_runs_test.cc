#include "shardstep/client/block_runs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "shardstep/client/tensor_chunks.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/sharding/test_seed.h"

namespace shardstep::internal {
namespace {

Region RandomBlock(const Shape& sizes, std::mt19937_64* random) {
  Region block;
  for (int64_t size : sizes) {
    block.offsets.push_back(static_cast<int64_t>((*random)() % size));
    block.sizes.push_back(static_cast<int64_t>(1 + (*random)() % (size - block.offsets.back())));
  }
  return block;
}

TEST(BlockRunsTest, AreThoseOfForEachRun) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 500; ++round) {
    Shape sizes(random() % 4);
    for (int64_t& size : sizes) size = static_cast<int64_t>(1 + random() % 5);
    const Region a = RandomBlock(sizes, &random);
    const Region b = RandomBlock(sizes, &random);
    const std::optional<Region> part = Intersect(a, b);
    if (!part) continue;
    // Element by element: ForEachRun may join runs that this leaves apart.
    std::vector<std::pair<int64_t, int64_t>> expected;
    ForEachRun(*part, a, b, [&](int64_t in_a, int64_t in_b, int64_t count) {
      for (int64_t i = 0; i < count; ++i) expected.emplace_back(in_a + i, in_b + i);
    });
    const BlockRuns runs(*part, a, b);
    std::vector<std::pair<int64_t, int64_t>> actual;
    for (int64_t run = 0; run < runs.count(); ++run) {
      for (int64_t i = 0; i < runs.length(); ++i) {
        EXPECT_EQ(runs.FirstEndingAfter(runs.AOffset(run) + i), run);
        actual.emplace_back(runs.AOffset(run) + i, runs.BOffset(run) + i);
      }
    }
    EXPECT_EQ(actual, expected);
    EXPECT_EQ(runs.FirstEndingAfter(expected.back().first + 1), runs.count());
  }
}

TEST(TensorChunksTest, CoverTheTensorInOrderWithinTheBound) {
  const int seed = TestSeed();
  SCOPED_TRACE(absl::StrCat("GTEST_RANDOM_SEED=", seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 500; ++round) {
    Shape sizes(random() % 4);
    for (int64_t& size : sizes)
      size = static_cast<int64_t>(random() % 8 == 0 ? 0 : 1 + random() % 5);
    const int64_t most = static_cast<int64_t>(1 + random() % 20);
    const Region whole{Shape(sizes.size(), 0), sizes};
    int64_t next = 0;
    for (TensorChunks chunks(sizes, most); !chunks.done(); chunks.Next()) {
      EXPECT_EQ(chunks.offset(), next);
      EXPECT_GE(chunks.elements(), 1);
      EXPECT_LE(chunks.elements(), most);
      int runs = 0;
      ForEachRun(chunks.region(), whole, chunks.region(),
                 [&](int64_t in_whole, int64_t in_chunk, int64_t count) {
                   ++runs;
                   EXPECT_EQ(in_whole, next);
                   EXPECT_EQ(in_chunk, 0);
                   EXPECT_EQ(count, chunks.elements());
                 });
      EXPECT_EQ(runs, 1);
      next += chunks.elements();
    }
    EXPECT_EQ(next, NumElements(sizes).value());
  }
}

TEST(TensorChunksTest, ATensorIsOneChunkWhereItFits) {
  TensorChunks chunks({3, 4, 5}, INT64_MAX);
  EXPECT_EQ(chunks.region(), (Region{{0, 0, 0}, {3, 4, 5}}));
  chunks.Next();
  EXPECT_TRUE(chunks.done());
  TensorChunks rows({3, 4, 5}, 40);
  EXPECT_EQ(rows.region(), (Region{{0, 0, 0}, {2, 4, 5}}));
}

}  // namespace
}  // namespace shardstep::internal
