#include "shardstep/optim/reduction.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include "shardstep/optim/blocks.h"
#include "shardstep/tests/status_matchers.h"

namespace shardstep {
namespace {

using testing::HasSubstr;

std::vector<float> Waves(int64_t count, float phase) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    values.push_back(std::sin(phase + 0.7f * static_cast<float>(i)));
  }
  return values;
}

at::Tensor Floats(const std::vector<float>& values) {
  return at::tensor(values, at::TensorOptions().dtype(at::kFloat));
}

std::vector<float> Values(const at::Tensor& tensor) {
  const float* data = tensor.const_data_ptr<float>();
  return std::vector<float>(data, data + tensor.numel());
}

ReducedGradient Reduce(std::vector<Contribution> contributions, int64_t elements,
                       const ReductionOptions& options, int threads = 1,
                       Reduction::Keep keep = Reduction::Keep::kTensor) {
  absl::StatusOr<Reduction> reduction =
      Reduction::Create(std::move(contributions), at::kFloat, elements, options, keep);
  EXPECT_OK(reduction);
  const auto run = [&](size_t first) {
    for (size_t i = first; i < reduction->num_blocks(); i += threads) reduction->RunBlock(i);
  };
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
  run(0);
  for (std::thread& other : others) other.join();
  absl::StatusOr<ReducedGradient> reduced = reduction->Finish();
  EXPECT_OK(reduced);
  return *std::move(reduced);
}

TEST(ReductionTest, FollowsTheFormulaRoundingByRounding) {
  const std::vector<float> a = Waves(103, 0), b = Waves(103, 1), c = Waves(103, 2);
  const ReducedGradient reduced = Reduce({{Floats(a), 0.3}, {Floats(b), 1}, {Floats(c), 1.7}}, 103,
                                         {/*divisor=*/3, /*grad_scale=*/7});
  for (size_t i = 0; i < a.size(); ++i) {
    const float product_a = a[i] * 0.3f;
    const float product_c = c[i] * 1.7f;
    float sum = product_a + b[i];
    sum = sum + product_c;
    const float mean = sum / 3.0f;
    ASSERT_EQ(Values(reduced.gradient.tensor)[i], mean * static_cast<float>(1.0 / 7)) << i;
  }
  EXPECT_TRUE(reduced.finite);
  const std::vector<float> values = Values(reduced.gradient.tensor);
  EXPECT_EQ(reduced.squares, MeasureBlock(absl::MakeConstSpan(values)).squares);
}

TEST(ReductionTest, MeanOfThreeIsATrueDivision) {
  const std::vector<float> values = Waves(500, 0);
  const at::Tensor zeros;
  const ReducedGradient reduced =
      Reduce({{Floats(values)}, {zeros}, {zeros}}, 500, {/*divisor=*/3});
  int differs_from_product = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(Values(reduced.gradient.tensor)[i], values[i] / 3.0f);
    differs_from_product += values[i] / 3.0f != values[i] * (1.0f / 3.0f);
  }
  EXPECT_GT(differs_from_product, 0);
}

TEST(ReductionTest, OrderIsAsGiven) {
  const at::Tensor large = Floats({1e8f}), minus_large = Floats({-1e8f}), one = Floats({1});
  EXPECT_EQ(Values(Reduce({{large}, {minus_large}, {one}}, 1, {}).gradient.tensor)[0], 1);
  EXPECT_EQ(Values(Reduce({{large}, {one}, {minus_large}}, 1, {}).gradient.tensor)[0], 0);
}

TEST(ReductionTest, ZerosTakePartAsPlusZero) {
  const at::Tensor minus_zero = Floats({-0.0f});
  EXPECT_FALSE(
      std::signbit(Values(Reduce({{at::Tensor()}, {minus_zero}}, 1, {}).gradient.tensor)[0]));
  EXPECT_FALSE(
      std::signbit(Values(Reduce({{minus_zero}, {at::Tensor()}}, 1, {}).gradient.tensor)[0]));
  EXPECT_TRUE(std::signbit(Values(Reduce({{minus_zero}}, 1, {}).gradient.tensor)[0]));
  EXPECT_EQ(Values(Reduce({{at::Tensor()}}, 3, {}).gradient.tensor), std::vector<float>(3, 0));
}

TEST(ReductionTest, HandsASingleContributionThrough) {
  at::Tensor gradient = Floats({1, 2, 3});
  const ReducedGradient reduced = Reduce({{gradient}}, 3, {});
  EXPECT_EQ(reduced.gradient.tensor.const_data_ptr(), gradient.const_data_ptr());
  EXPECT_EQ(reduced.squares.hi, 14);
}

TEST(ReductionTest, NeverWritesContributions) {
  const at::Tensor first = Floats({1, 2}), second = Floats({10, 20});
  EXPECT_THAT(Values(Reduce({{first, 3}, {second}}, 2, {2, 2}).gradient.tensor),
              testing::ElementsAre(3.25f, 6.5f));
  // A view holds memory just as well.
  const at::Tensor view = Floats({1, 2}).view({2, 1});
  std::vector<Contribution> contributions = {{view.view(-1)}, {second}};
  Reduce(std::move(contributions), 2, {});
  EXPECT_THAT(Values(first), testing::ElementsAre(1, 2));
  EXPECT_THAT(Values(second), testing::ElementsAre(10, 20));
  EXPECT_THAT(Values(view.contiguous()), testing::ElementsAre(1, 2));
}

// Formed in pieces that have nothing to do with the sum's parts.
std::vector<float> Formed(const GradientSum& sum) {
  const at::Tensor all = at::empty({sum.elements()}, at::TensorOptions().dtype(at::kFloat));
  for (int64_t i = 0; i < BlockCount(sum.elements(), 1001); ++i) {
    const BlockRange piece = BlockAt(i, sum.elements(), 1001);
    sum.Write(piece, all.narrow(0, piece.begin, piece.length));
  }
  return Values(all);
}

TEST(ReductionTest, WhatIsLeftASumHasTheSameBits) {
  for (const int64_t elements :
       {int64_t{5}, kPartElements + 3, kBlockElements + kPartElements + 7}) {
    const std::vector<float> a = Waves(elements, 0);
    const auto reduce = [&](Reduction::Keep keep) {
      return Reduce({{Floats(a), 0.3}}, elements, {3, 7}, 1, keep);
    };
    const ReducedGradient kept = reduce(Reduction::Keep::kTensor);
    const ReducedGradient left = reduce(Reduction::Keep::kAny);
    ASSERT_FALSE(left.gradient.tensor.defined());
    ASSERT_NE(left.gradient.sum, nullptr);
    EXPECT_EQ(Formed(*left.gradient.sum), Values(kept.gradient.tensor));
    EXPECT_EQ(left.squares, kept.squares);
    EXPECT_TRUE(left.finite);
  }
}

TEST(ReductionTest, SeveralContributionsAreSummedOnce) {
  const auto reduce = [](std::vector<Contribution> contributions) {
    return Reduce(std::move(contributions), 2, {}, 1, Reduction::Keep::kAny).gradient;
  };
  EXPECT_THAT(Values(reduce({{Floats({1, 2})}, {Floats({3, 4})}}).tensor),
              testing::ElementsAre(4, 6));
  EXPECT_NE(reduce({{Floats({1, 2}), 3}}).sum, nullptr);
  EXPECT_TRUE(reduce({{Floats({1, 2})}}).tensor.defined());
}

TEST(ReductionTest, WhatIsNotFiniteIsFoundInASumToo) {
  std::vector<float> values(kPartElements + 5, 3e38f);
  const auto finite = [&] {
    return Reduce({{Floats(values), 2}}, kPartElements + 5, {}, 1, Reduction::Keep::kAny).finite;
  };
  EXPECT_FALSE(finite());
  std::fill(values.begin(), values.end(), 1.0f);
  EXPECT_TRUE(finite());
  values.back() = 3e38f;
  EXPECT_FALSE(finite());
}

TEST(ReductionTest, DoesNotDependOnThreads) {
  const int64_t elements = 2 * kBlockElements + 77;
  const std::vector<float> a = Waves(elements, 0), b = Waves(elements, 1);
  const ReducedGradient one = Reduce({{Floats(a)}, {Floats(b)}}, elements, {2});
  const ReducedGradient two = Reduce({{Floats(a)}, {Floats(b)}}, elements, {2}, /*threads=*/2);
  EXPECT_EQ(Values(one.gradient.tensor), Values(two.gradient.tensor));
  EXPECT_EQ(one.squares, two.squares);
  EXPECT_NE(one.squares.lo, 0);
}

TEST(ReductionTest, FindsWhatIsNotFiniteInAnyBlock) {
  const int64_t elements = kBlockElements + 5;
  std::vector<float> values(elements, 1);
  for (float* bad : {&values.front(), &values.back()}) {
    *bad = std::numeric_limits<float>::infinity();
    EXPECT_FALSE(Reduce({{Floats(values)}}, elements, {}).finite);
    *bad = 1;
  }
  EXPECT_TRUE(Reduce({{Floats(values)}}, elements, {}).finite);
}

TEST(ReductionTest, OverflowOfTheSumIsNotFinite) {
  const std::vector<float> large(9, 3e38f);
  EXPECT_FALSE(Reduce({{Floats(large)}, {Floats(large)}}, 9, {2}).finite);
}

TEST(ReductionTest, EmptyShard) {
  const ReducedGradient reduced = Reduce({{Floats({})}, {at::Tensor()}}, 0, {2});
  EXPECT_EQ(reduced.gradient.tensor.numel(), 0);
  EXPECT_TRUE(reduced.finite);
  EXPECT_EQ(reduced.squares, SquaredNorm());
}

TEST(ReductionTest, RefusesWhatDoesNotFit) {
  const auto refused = [](std::vector<Contribution> contributions, ReductionOptions options,
                          at::ScalarType dtype = at::kFloat) {
    return Reduction::Create(std::move(contributions), dtype, 2, options).status();
  };
  const auto invalid = [](const char* text) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text));
  };
  const at::Tensor good = Floats({1, 2});
  EXPECT_THAT(refused({}, {}), invalid("at least one"));
  EXPECT_THAT(refused({{good}}, {}, at::kHalf), invalid("got Half"));
  EXPECT_THAT(refused({{good}, {Floats({1, 2, 3})}}, {}), invalid("got 3"));
  EXPECT_THAT(refused({{good.to(at::kDouble)}}, {}), invalid("of Double"));
  EXPECT_THAT(refused({{Floats({1, 2, 3, 4}).view({2, 2}).select(1, 0)}}, {}),
              invalid("not contiguous"));
  EXPECT_THAT(refused({{good, 0}}, {}), invalid("weight"));
  EXPECT_THAT(refused({{good}}, {/*divisor=*/-1}), invalid("divisor"));
  EXPECT_THAT(refused({{good}}, {1, /*grad_scale=*/0}), invalid("grad_scale"));
}

}  // namespace
}  // namespace shardstep
