// Cutting and scattering are each other's inverse, whatever the two shardings are.
#include "shardstep/client/tensor_cut.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <random>

#include "shardstep/client/fake_fleet.h"
#include "shardstep/client/slice_sink.h"
#include "shardstep/sharding/overlap.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/frame.h"
#include "shardstep/wire/limits.h"

namespace shardstep::internal {
namespace {

using ::testing::SizeIs;

// A grid over `sizes` with random pieces per dimension, as shards on servers 0 and 1.
Enumerable RandomGrid(const Shape& sizes, std::mt19937* random) {
  std::vector<int64_t> grid;
  int64_t blocks = 1;
  for (size_t i = 0; i < sizes.size(); ++i) {
    grid.push_back(1 + (*random)() % 3);
    blocks *= grid.back();
  }
  std::vector<Placement> placements;
  for (int64_t i = 0; i < blocks; ++i) placements.push_back({static_cast<int>((*random)() % 2)});
  return Grid(sizes, grid, placements).value();
}

struct Case {
  std::shared_ptr<const OptimizerIndex> index;
  std::vector<float> tensor;            // the whole parameter
  std::vector<std::vector<float>> own;  // the user's blocks of it
  std::vector<Block> blocks;
};

Case RandomCase(std::mt19937* random) {
  Case c;
  Shape sizes;
  for (int dims = 1 + (*random)() % 3; dims > 0; --dims) sizes.push_back(1 + (*random)() % 40);
  c.index = std::make_shared<const OptimizerIndex>(
      Describe({{"w", DType::kFloat32, sizes, RandomGrid(sizes, random)}}, 2));
  c.tensor.resize(NumElements(sizes).value());
  std::iota(c.tensor.begin(), c.tensor.end(), 1.0f);
  const Region whole = WholeRegion(sizes);
  for (const ShardMetadata& local : RandomGrid(sizes, random).shards) {
    const Region region = RegionOf(local);
    std::vector<float>& own = c.own.emplace_back(NumElements(region.sizes).value());
    ForEachRun(region, whole, region, [&](int64_t from, int64_t to, int64_t count) {
      std::copy_n(&c.tensor[from], count, &own[to]);
    });
    c.blocks.push_back({region, MakeTensorView(own.data(), ToShape(region.sizes))});
  }
  return c;
}

std::deque<OutgoingSlice> CutAll(const Case& c) {
  std::vector<OutgoingSlice> slices;
  for (int shard = 0; shard < c.index->num_shards(); ++shard) {
    for (const Block& block : c.blocks) CutBlock(*c.index, shard, 0, block, &slices);
  }
  return {slices.begin(), slices.end()};
}

// What a server makes of the frames: each shard's bytes.
std::vector<std::vector<float>> Assemble(const OptimizerIndex& index,
                                         std::deque<OutgoingSlice> waiting) {
  std::vector<std::vector<float>> shards(index.num_shards());
  for (int i = 0; i < index.num_shards(); ++i) {
    shards[i].resize(NumElements(index.shard(i).metadata.sizes).value(), -1.0f);
  }
  while (!waiting.empty()) {
    const OutgoingFrame frame = TakeFrame(&waiting);
    std::string payload;
    for (absl::string_view piece : PayloadOf(frame)) payload.append(piece.data(), piece.size());
    EXPECT_LE(payload.size(), kDefaultFramePayloadBytes);
    size_t at = 0;
    const v1::FrameHeader header = HeaderOf(frame);
    for (const v1::Slice& slice : header.slices().slices()) {
      std::memcpy(&shards[slice.shard()][slice.offset()], &payload[at], slice.count() * 4);
      at += slice.count() * 4;
    }
    EXPECT_EQ(at, payload.size());
  }
  return shards;
}

TEST(TensorCutTest, ShardsAssembledFromAnyLocalShardsHoldTheTensor) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    const Case c = RandomCase(&random);
    const auto shards = Assemble(*c.index, CutAll(c));
    const Region whole = WholeRegion(c.index->parameters()[0].sizes);
    for (int i = 0; i < c.index->num_shards(); ++i) {
      const Region region = RegionOf(c.index->shard(i).metadata);
      if (IsEmpty(region)) continue;
      ForEachRun(region, whole, region, [&](int64_t from, int64_t to, int64_t count) {
        for (int64_t k = 0; k < count; ++k) ASSERT_EQ(shards[i][to + k], c.tensor[from + k]);
      });
    }
  }
}

TEST(TensorCutTest, WhatIsReadBackIntoTheBlocksIsWhatWasCut) {
  std::mt19937 random(11);
  for (int round = 0; round < 300; ++round) {
    const Case c = RandomCase(&random);
    std::deque<OutgoingSlice> waiting = CutAll(c);
    std::vector<std::vector<float>> read = c.own;
    std::vector<Block> into = c.blocks;
    for (size_t i = 0; i < read.size(); ++i) {
      std::fill(read[i].begin(), read[i].end(), -1.0f);
      into[i].view.data = read[i].data();
    }
    BlockSink sink(c.index);
    sink.Add(0, into);
    while (!waiting.empty()) {
      const OutgoingFrame frame = TakeFrame(&waiting);
      FrameView view;
      view.header = HeaderOf(frame);
      view.payload = PayloadOf(frame);
      for (absl::string_view piece : view.payload) view.payload_bytes += piece.size();
      PayloadReader payload(view);
      for (const v1::Slice& whole : view.header.slices().slices()) {
        const int rank = c.index->shard(whole.shard()).metadata.placement.server_rank;
        // A server cuts where it likes.
        v1::Slice slice = whole;
        slice.set_count(random() % (whole.count() + 1));
        ASSERT_OK(sink.Take(rank, slice, &payload));
        slice.set_offset(slice.offset() + slice.count());
        slice.set_count(whole.count() - slice.count());
        ASSERT_OK(sink.Take(rank, slice, &payload));
      }
    }
    ASSERT_OK(sink.Finish());
    ASSERT_EQ(read, c.own);
  }
}

TEST(TensorCutTest, ShortRunsAreGatheredAndLongOnesAreNot) {
  const auto index = std::make_shared<const OptimizerIndex>(
      Describe({{"w", DType::kFloat32, {1000, 4}, Chunk{1, {{0}, {0}}}}}, 1));
  std::vector<float> tensor(4000);
  std::iota(tensor.begin(), tensor.end(), 0.0f);
  std::vector<OutgoingSlice> slices;
  CutBlock(*index, 1, 0, {WholeRegion({1000, 4}), MakeTensorView(tensor.data(), {1000, 4})},
           &slices);
  ASSERT_THAT(slices, SizeIs(1));
  ASSERT_NE(slices[0].gathered, nullptr);
  EXPECT_EQ(slices[0].count, 2000u);
  float second = 0.0f;
  std::memcpy(&second, slices[0].pieces[0].data() + 4, 4);
  EXPECT_EQ(second, 3.0f);
}

TEST(TensorCutTest, ZerosHaveRangesAndNoBytes) {
  const auto index = std::make_shared<const OptimizerIndex>(
      Describe({{"w", DType::kFloat64, {6}, Chunk{0, {{0}, {1}}}}}, 2));
  std::vector<OutgoingSlice> slices;
  CutZeros(*index, 1, {WholeRegion({6}), {nullptr, DType::kFloat64, {6}}}, &slices);
  ASSERT_THAT(slices, SizeIs(1));
  EXPECT_TRUE(slices[0].zero);
  EXPECT_EQ(slices[0].count, 3u);
  EXPECT_EQ(slices[0].bytes, 0u);
}

TEST(SliceSinkTest, RefusesWhatAServerDoesNotOwnOrThatLiesBeyondItsShard) {
  const auto index = std::make_shared<const OptimizerIndex>(
      Describe({{"w", DType::kFloat32, {6}, Chunk{0, {{0}, {1}}}}}, 2));
  std::vector<float> tensor(6);
  BlockSink sink(index);
  sink.Add(0, {{WholeRegion({6}), MakeTensorView(tensor.data(), {6})}});
  FrameView view;
  const std::string bytes(64, '\0');
  view.payload = {bytes};
  view.payload_bytes = bytes.size();
  PayloadReader payload(view);
  v1::Slice slice;
  slice.set_shard(1);
  slice.set_count(3);
  slice.set_dtype(v1::FLOAT32);
  EXPECT_THAT(sink.Take(0, slice, &payload), StatusIs(absl::StatusCode::kInternal));
  slice.set_offset(UINT64_MAX);
  EXPECT_THAT(sink.Take(1, slice, &payload), StatusIs(absl::StatusCode::kInternal));
  slice.set_offset(0);
  slice.set_shard(7);
  EXPECT_THAT(sink.Take(1, slice, &payload), StatusIs(absl::StatusCode::kInternal));
  slice.set_shard(1);
  slice.set_dtype(v1::FLOAT64);
  EXPECT_THAT(sink.Take(1, slice, &payload), StatusIs(absl::StatusCode::kInternal));
  slice.set_dtype(v1::FLOAT32);
  EXPECT_OK(sink.Take(1, slice, &payload));
  EXPECT_THAT(sink.Finish(),
              StatusIs(absl::StatusCode::kInternal, "server 0 sent 0 of 3 elements of shard 0"));
}

}  // namespace
}  // namespace shardstep::internal
