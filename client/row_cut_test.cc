#include "shardstep/client/row_cut.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "shardstep/client/fake_fleet.h"
#include "shardstep/tests/status_matchers.h"
#include "shardstep/wire/limits.h"

namespace shardstep::internal {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// One parameter "w", cut in a grid of blocks over two servers.
OptimizerIndex IndexOf(const Shape& sizes, const std::vector<int64_t>& grid) {
  int64_t blocks = 1;
  for (const int64_t count : grid) blocks *= count;
  std::vector<Placement> placements;
  for (int64_t i = 0; i < blocks; ++i) placements.push_back({static_cast<int>(i % 2)});
  return OptimizerIndex(
      Describe({{"w", DType::kFloat32, sizes, Grid(sizes, grid, placements).value()}}, 2));
}

// The rows that a shard gets, in their order, as a server reads them.
using Received = std::vector<std::pair<int64_t, std::vector<float>>>;
Received Receive(const OptimizerIndex& index, int shard, const RowGradient& gradient) {
  std::vector<OutgoingSlice> slices;
  CutRows(index, shard, gradient, &slices);
  std::deque<OutgoingSlice> waiting(slices.begin(), slices.end());
  Received received;
  while (!waiting.empty()) {
    const OutgoingFrame frame = TakeFrame(&waiting);
    std::string payload;
    for (absl::string_view piece : PayloadOf(frame)) payload.append(piece.data(), piece.size());
    EXPECT_LE(payload.size(), kMaxFramePayloadBytes);
    size_t at = 0;
    const v1::FrameHeader header = HeaderOf(frame);
    for (const v1::Slice& slice : header.slices().slices()) {
      EXPECT_EQ(slice.body(), v1::Slice::ROWS);
      EXPECT_EQ(slice.shard(), static_cast<uint32_t>(shard));
      EXPECT_EQ(slice.offset(), 0u);
      const size_t row_bytes = slice.row_elements() * sizeof(float);
      const char* const elements = &payload[at + slice.count() * sizeof(int64_t)];
      for (uint64_t i = 0; i < slice.count(); ++i) {
        auto& [number, values] = received.emplace_back();
        std::memcpy(&number, &payload[at + i * sizeof(number)], sizeof(number));
        values.resize(slice.row_elements());
        std::memcpy(values.data(), elements + i * row_bytes, row_bytes);
      }
      at += slice.count() * (sizeof(int64_t) + row_bytes);
    }
    EXPECT_EQ(at, payload.size());
  }
  return received;
}

TEST(RowCutTest, EveryShardGetsItsPartOfItsRowsInTheirOrder) {
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    Shape sizes;
    std::vector<int64_t> grid;
    for (int dims = 1 + random() % 3; dims > 0; --dims) {
      sizes.push_back(1 + random() % 90);
      grid.push_back(1 + random() % 3);
    }
    const OptimizerIndex index = IndexOf(sizes, grid);
    std::vector<int64_t> rows(random() % 40);
    for (int64_t& row : rows) row = random() % sizes[0];
    Shape row_sizes(sizes.begin() + 1, sizes.end());
    const int64_t row_elements = NumElements(row_sizes).value();
    std::vector<float> values(rows.size() * row_elements);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
    Shape all = sizes;
    all[0] = static_cast<int64_t>(rows.size());
    const RowGradient gradient = {rows, MakeTensorView(values.data(), all)};
    ASSERT_OK(CheckRows(index, 0, gradient));
    for (int shard = 0; shard < index.num_shards(); ++shard) {
      const ShardMetadata& metadata = index.shard(shard).metadata;
      Received expected;
      for (size_t i = 0; i < rows.size(); ++i) {
        if (rows[i] < metadata.offsets[0] || rows[i] >= metadata.offsets[0] + metadata.sizes[0]) {
          continue;
        }
        auto& [number, part] = expected.emplace_back();
        number = rows[i] - metadata.offsets[0];
        for (int64_t e = 0; e < row_elements; ++e) {
          bool inside = true;
          int64_t left = e;
          for (size_t d = sizes.size() - 1; d > 0; --d) {
            const int64_t at = left % sizes[d] - metadata.offsets[d];
            inside = inside && at >= 0 && at < metadata.sizes[d];
            left /= sizes[d];
          }
          if (inside) part.push_back(values[i * row_elements + e]);
        }
        if (part.empty()) expected.pop_back();
      }
      ASSERT_EQ(Receive(index, shard, gradient), expected) << round;
    }
  }
}

TEST(RowCutTest, ManyRowsTakeManyFrames) {
  const OptimizerIndex index = IndexOf({4000, 100}, {1, 1});
  std::vector<int64_t> rows;
  for (int64_t row = 3999; row >= 0; --row) rows.push_back(row);
  const std::vector<float> values(4000 * 100, 1.5f);
  const Received received = Receive(index, 0, {rows, MakeTensorView(values.data(), {4000, 100})});
  ASSERT_EQ(received.size(), rows.size());
  for (size_t i = 0; i < rows.size(); ++i) ASSERT_EQ(received[i].first, rows[i]);
}

TEST(RowCutTest, WideRowsAreReferredToAndShortOnesCopied) {
  const OptimizerIndex wide = IndexOf({5, 100}, {1, 1});
  const std::vector<float> values(500);
  const std::vector<int64_t> rows = {4, 0, 2};
  std::vector<OutgoingSlice> slices;
  CutRows(wide, 0, {rows, MakeTensorView(values.data(), {3, 100})}, &slices);
  ASSERT_EQ(slices.size(), 1u);
  ASSERT_EQ(slices[0].pieces.size(), 2u);  // the numbers, and the rows, which lie together
  EXPECT_EQ(slices[0].pieces[1].data(), reinterpret_cast<const char*>(values.data()));
  slices.clear();
  CutRows(IndexOf({5, 100}, {1, 50}), 1, {rows, MakeTensorView(values.data(), {3, 100})}, &slices);
  ASSERT_EQ(slices.size(), 1u);
  EXPECT_EQ(slices[0].pieces.size(), 1u);
}

TEST(RowCutTest, SumsByNumberInTheGradientsOrder) {
  const std::vector<int64_t> rows = {4, 1, 4, 4};
  const std::vector<float> values = {1e8f, 1, 5, 5, -1e8f, 2, 1, 3};
  const RowGradient gradient = {rows, MakeTensorView(values.data(), {4, 2})};
  const auto summed = SumRows(gradient);
  EXPECT_THAT(summed->rows, ElementsAre(4, 1));
  EXPECT_EQ(summed->values.sizes, (Shape{2, 2}));
  const auto* const sums = static_cast<const float*>(summed->values.data);
  EXPECT_THAT(std::vector<float>(sums, sums + 4), ElementsAre(1, 6, 5, 5));
}

TEST(RowCutTest, KnowsWhenAShardGetsMoreRowsThanItHas) {
  const OptimizerIndex index = IndexOf({5, 2}, {2, 1});  // rows 0-2 and 3-4
  const std::vector<float> values(12);
  const auto too_many = [&](const std::vector<int64_t>& rows) {
    const auto count = static_cast<int64_t>(rows.size());
    return HasTooManyRows(index, 0, {rows, MakeTensorView(values.data(), {count, 2})});
  };
  EXPECT_FALSE(too_many({0, 0, 0, 3, 3}));
  EXPECT_TRUE(too_many({0, 3, 3, 3}));
}

TEST(RowCutTest, RefusesWhatIsNoGradientOfTheParameter) {
  const OptimizerIndex index = IndexOf({5, 2}, {2, 1});
  const std::vector<float> values(200);
  const auto check = [&](const std::vector<int64_t>& rows, const ConstTensorView& view) {
    return CheckRows(index, 0, {rows, view});
  };
  const auto invalid = [](const char* what) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(what));
  };
  EXPECT_OK(check({}, MakeTensorView(values.data(), {0, 2})));
  EXPECT_OK(check({4, 4}, MakeTensorView(values.data(), {2, 2})));
  EXPECT_THAT(check({5}, MakeTensorView(values.data(), {1, 2})), invalid("row 5, the parameter"));
  EXPECT_THAT(check({-1}, MakeTensorView(values.data(), {1, 2})), invalid("row -1"));
  EXPECT_THAT(check({1}, MakeTensorView(values.data(), {2, 2})), invalid("rows of shape [1,2]"));
  EXPECT_THAT(check({1}, MakeTensorView(values.data(), {1, 3})), invalid("rows of shape"));
  const std::vector<double> doubles(2);
  EXPECT_THAT(check({1}, MakeTensorView(doubles.data(), {1, 2})),
              invalid("expected dtype float32"));
  EXPECT_THAT(check({1}, MakeTensorView(static_cast<const float*>(nullptr), {1, 2})),
              invalid("data is null"));
  const std::vector<float> huge(1 << 18);
  EXPECT_THAT(CheckRows(IndexOf({2, 1 << 18}, {2, 1}), 0,
                        {std::vector<int64_t>{1}, MakeTensorView(huge.data(), {1, 1 << 18})}),
              invalid("push the gradient whole"));
  const OptimizerIndex scalar(Describe({{"s", DType::kFloat32, {}, Whole{0}}}, 1));
  EXPECT_THAT(CheckRows(scalar, 0, {{}, MakeTensorView(values.data(), {})}), invalid("no rows"));
}

}  // namespace
}  // namespace shardstep::internal
