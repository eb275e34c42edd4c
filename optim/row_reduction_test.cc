#include "shardstep/optim/row_reduction.h"

#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

RowChunk Chunk(const std::vector<int64_t>& rows, const std::vector<float>& elements) {
  return {at::tensor(rows, at::TensorOptions().dtype(at::kLong)),
          at::tensor(elements, at::TensorOptions().dtype(at::kFloat))};
}

std::vector<int64_t> Rows(const ReducedRows& reduced) {
  const int64_t* const data = reduced.rows.const_data_ptr<int64_t>();
  return std::vector<int64_t>(data, data + reduced.rows.numel());
}

std::vector<float> Elements(const at::Tensor& tensor) {
  const float* const data = tensor.const_data_ptr<float>();
  return std::vector<float>(data, data + tensor.numel());
}

ReducedRows Reduce(std::vector<RowContribution> contributions, const RowShape& shape,
                   const ReductionOptions& options = {}, int threads = 1) {
  absl::StatusOr<RowReduction> reduction =
      RowReduction::Create(std::move(contributions), at::kFloat, shape, options);
  EXPECT_OK(reduction);
  const auto run = [&](size_t first) {
    for (size_t i = first; i < reduction->num_blocks(); i += threads) reduction->RunBlock(i);
  };
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
  run(0);
  for (std::thread& other : others) other.join();
  absl::StatusOr<ReducedRows> reduced = reduction->Finish();
  EXPECT_OK(reduced);
  return *std::move(reduced);
}

TEST(RowReductionTest, SumsDuplicatesInTheOrderPushed) {
  // In any other order the 1 is lost, or not.
  const ReducedRows kept =
      Reduce({{{Chunk({4, 1, 4}, {1e8f, 5, -1e8f}), Chunk({4}, {1})}}}, {6, 1});
  EXPECT_THAT(Rows(kept), ElementsAre(1, 4));
  EXPECT_THAT(Elements(kept.gradient), ElementsAre(5, 1));
  const ReducedRows lost =
      Reduce({{{Chunk({4, 1, 4}, {1e8f, 5, 1}), Chunk({4}, {-1e8f})}}}, {6, 1});
  EXPECT_THAT(Elements(lost.gradient), ElementsAre(5, 0));
}

TEST(RowReductionTest, FollowsTheFormulaRoundingByRounding) {
  const float a = 0.1f, b = 0.7f, c = 0.3f, d = 1.9f;
  const ReducedRows reduced = Reduce({{{Chunk({2, 2}, {a, d, b, d})}, 0.3},
                                      {{Chunk({2}, {c, a})}, 1.7},
                                      {{Chunk({0}, {b, b})}, 1}},
                                     {3, 2}, {/*divisor=*/3, /*grad_scale=*/7});
  EXPECT_THAT(Rows(reduced), ElementsAre(0, 2));
  const auto scaled = [](float sum) {
    const float mean = sum / 3.0f;
    return mean * static_cast<float>(1.0 / 7);
  };
  // Duplicates first, then the weight, then the other trainers.
  const float first = (a + b) * 0.3f, second = (d + d) * 0.3f;
  const float more = c * 1.7f, most = a * 1.7f;
  EXPECT_THAT(Elements(reduced.gradient),
              ElementsAre(scaled(b), scaled(b), scaled(first + more), scaled(second + most)));
  EXPECT_EQ(reduced.gradient.size(1), 2);
  EXPECT_EQ(reduced.squares, MeasureBlock(absl::MakeConstSpan(Elements(reduced.gradient))).squares);
}

// 60,000 rows of 16 elements, four for each of 15,000 numbers.
RowContribution Large() {
  RowContribution contribution;
  for (int chunk = 0; chunk < 60; ++chunk) {
    std::vector<int64_t> rows;
    std::vector<float> elements;
    for (int i = 0; i < 1000; ++i) {
      rows.push_back((chunk * 1000 + i) * int64_t{7919} % 15000);
      for (int j = 0; j < 16; ++j) elements.push_back(std::sin(0.1f * (chunk + i * j)));
    }
    contribution.chunks.push_back(Chunk(rows, elements));
  }
  return contribution;
}

TEST(RowReductionTest, BlocksAndThreadsChangeNothing) {
  const RowContribution large = Large();
  ASSERT_OK_AND_ASSIGN(const RowReduction reduction,
                       RowReduction::Create({large}, at::kFloat, {15000, 16}, {}));
  ASSERT_GT(reduction.num_blocks(), 2);
  const ReducedRows reduced = Reduce({large}, {15000, 16}, {}, /*threads=*/3);
  ASSERT_OK_AND_ASSIGN(const at::Tensor dense, DenseFromRows(large, at::kFloat, {15000, 16}));
  ASSERT_EQ(Rows(reduced).size(), 15000u);
  for (int64_t i = 0; i < 15000; ++i) ASSERT_EQ(Rows(reduced)[i], i);
  EXPECT_EQ(Elements(reduced.gradient), Elements(dense));
}

TEST(RowReductionTest, NoRowsAreAGradientWithoutElements) {
  const ReducedRows reduced = Reduce({{{}, 2}}, {5, 3}, {2, 2});
  EXPECT_EQ(reduced.rows.numel(), 0);
  EXPECT_EQ(reduced.gradient.sizes(), (std::vector<int64_t>{0, 3}));
  EXPECT_TRUE(reduced.finite);
  EXPECT_EQ(reduced.squares, SquaredNorm());
}

TEST(RowReductionTest, SaysWhatIsNotFinite) {
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(Reduce({{{Chunk({1, 2}, {1, inf})}}}, {3, 1}).finite);
  EXPECT_FALSE(Reduce({{{Chunk({1, 1}, {inf, -inf})}}}, {3, 1}).finite);
}

TEST(RowReductionTest, RefusesWhatDoesNotFit) {
  const auto create = [](const RowContribution& contribution, const ReductionOptions& options) {
    return RowReduction::Create({contribution}, at::kFloat, {4, 2}, options).status();
  };
  const auto invalid = [](const char* what) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(what));
  };
  EXPECT_OK(create({{Chunk({3}, {1, 2})}}, {}));
  EXPECT_THAT(create({{Chunk({4}, {1, 2})}}, {}), invalid("row 4 of a gradient: the shard has 4"));
  EXPECT_THAT(create({{Chunk({-1}, {1, 2})}}, {}), invalid("row -1"));
  EXPECT_THAT(create({{Chunk({3}, {1})}}, {}), invalid("expected 2 contiguous elements"));
  EXPECT_THAT(create({{Chunk({3}, {1, 2})}, -1}, {}), invalid("weight of a contribution"));
  EXPECT_THAT(create({{Chunk({3}, {1, 2})}}, {0, 1}), invalid("divisor"));
  EXPECT_THAT(create({{Chunk({3}, {1, 2})}}, {1, 0}), invalid("grad_scale"));
}

}  // namespace
}  // namespace shardstep
