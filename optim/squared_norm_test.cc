#include "shardstep/optim/squared_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "shardstep/optim/compensated_sum.h"
#include "shardstep/optim/kernels/norm_kernels.h"

namespace shardstep {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

SquaredNorm Squares(const std::vector<double>& values) {
  return MeasureBlock(absl::MakeConstSpan(values)).squares;
}

TEST(MeasureBlockTest, KeepsWhatADoubleWouldLose) {
  // 1 + 2^-100 does not fit a double.
  std::vector<double> values(20, 0.0);
  values[3] = 1;
  values[11] = std::ldexp(1, -50);
  EXPECT_EQ(Squares(values), (SquaredNorm{1, std::ldexp(1, -100)}));
}

TEST(MeasureBlockTest, SquaresOfDoublesAreExact) {
  // (1 + 2^-30)^2 = 1 + 2^-29 + 2^-60
  EXPECT_EQ(Squares({1 + std::ldexp(1, -30)}),
            (SquaredNorm{1 + std::ldexp(1, -29), std::ldexp(1, -60)}));
}

TEST(MeasureBlockTest, FloatsAndDoublesOfOneValueAgree) {
  std::vector<float> floats;
  std::vector<double> doubles;
  for (int i = 0; i < 101; ++i) {
    floats.push_back(std::sin(static_cast<float>(i)) * 1e3f);
    doubles.push_back(floats.back());
  }
  EXPECT_EQ(MeasureBlock(absl::MakeConstSpan(floats)).squares, Squares(doubles));
}

// A kernel takes what it can of floats; of doubles there is none.
TEST(MeasureBlockTest, EveryLengthAndRangeOfFloatsAgreesWithDoubles) {
  for (int length = 0; length <= 70; ++length) {
    std::vector<float> floats;
    std::vector<double> doubles;
    for (int i = 0; i < length; ++i) {
      floats.push_back(std::ldexp(std::sin(static_cast<float>(i + length)), (i * 37) % 250 - 125));
      doubles.push_back(floats.back());
    }
    EXPECT_EQ(MeasureBlock(absl::MakeConstSpan(floats)).squares, Squares(doubles)) << length;
  }
}

// Which of them a block goes through depends on the machine; its bits do not.
TEST(NormKernelsTest, AgreeInEveryLane) {
  std::vector<std::pair<const char*, decltype(&AVX2::AddSquares)>> kernels;
  if (__builtin_cpu_supports("avx2") != 0) kernels.emplace_back("AVX2", AVX2::AddSquares);
  if (__builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
      __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0) {
    kernels.emplace_back("AVX512", AVX512::AddSquares);
  }
  std::vector<float> values;
  for (int i = 0; i < 640; ++i) {
    values.push_back(std::ldexp(std::sin(static_cast<float>(i)), (i * 37) % 250 - 125));
  }
  NormLanes expected;
  for (size_t i = 0; i < values.size(); ++i) {
    double error = 0;
    const double square = static_cast<double>(values[i]) * values[i];
    expected.hi[i % kNormLanes] = TwoSum(expected.hi[i % kNormLanes], square, &error);
    expected.lo[i % kNormLanes] += error;
  }
  for (const auto& [name, kernel] : kernels) {
    NormLanes lanes;
    // In two calls: sums go on where they were.
    EXPECT_TRUE(kernel(values.data(), 400, &lanes)) << name;
    EXPECT_TRUE(kernel(values.data() + 400, 240, &lanes)) << name;
    for (int lane = 0; lane < kNormLanes; ++lane) {
      EXPECT_EQ(lanes.hi[lane], expected.hi[lane]) << name << " " << lane;
      EXPECT_EQ(lanes.lo[lane], expected.lo[lane]) << name << " " << lane;
    }
    for (const float bad : {INFINITY, -INFINITY, NAN}) {
      std::vector<float> with_bad = values;
      with_bad[333] = bad;
      EXPECT_FALSE(kernel(with_bad.data(), 640, &lanes)) << name;
    }
  }
}

TEST(MeasureBlockTest, EmptyIsZero) { EXPECT_EQ(Squares({}), SquaredNorm()); }

TEST(MeasureBlockTest, FindsWhatIsNotFinite) {
  for (const double bad : {kInfinity, -kInfinity, std::numeric_limits<double>::quiet_NaN()}) {
    for (const size_t place : {size_t{0}, size_t{9}, size_t{16}}) {
      std::vector<double> doubles(17, 1.0);
      doubles[place] = bad;
      const std::vector<float> floats(doubles.begin(), doubles.end());
      EXPECT_FALSE(MeasureBlock(absl::MakeConstSpan(doubles)).finite) << bad << " at " << place;
      EXPECT_FALSE(MeasureBlock(absl::MakeConstSpan(floats)).finite) << bad << " at " << place;
    }
  }
}

TEST(MeasureBlockTest, FiniteValuesMayHaveAnInfiniteNorm) {
  const std::vector<double> values = {1e200, 1};
  const BlockNorm norm = MeasureBlock(absl::MakeConstSpan(values));
  EXPECT_TRUE(norm.finite);
  EXPECT_EQ(norm.squares, (SquaredNorm{kInfinity, 0}));
  EXPECT_EQ(Sum(norm.squares, {1, 0}), (SquaredNorm{kInfinity, 0}));
}

TEST(SumTest, CarriesTheSmallPart) {
  const SquaredNorm tiny = {std::ldexp(1, -70), 0};
  SquaredNorm total = {1, 0};
  for (int i = 0; i < 4; ++i) total = Sum(total, tiny);
  EXPECT_EQ(total, (SquaredNorm{1, std::ldexp(1, -68)}));
}

TEST(NormTest, IsRoundedOnce) {
  EXPECT_EQ(Norm({2, 0}, true), std::sqrt(2.0));
  EXPECT_EQ(Norm({2, 0}, false), static_cast<double>(std::sqrt(2.0f)));
}

TEST(ClipCoefficientTest, IsNeverAboveOne) {
  EXPECT_EQ(ClipCoefficient(0.5, 1, false), 1);
  EXPECT_EQ(ClipCoefficient(0, 1, true), 1);
}

TEST(ClipCoefficientTest, IsComputedInItsDtype) {
  EXPECT_EQ(ClipCoefficient(3, 1, true), 1 / (3 + 1e-6));
  EXPECT_EQ(ClipCoefficient(3, 1, false), static_cast<double>(1.0f / (3.0f + 1e-6f)));
}

TEST(ClipCoefficientTest, PassesNonFiniteNormsOn) {
  EXPECT_EQ(ClipCoefficient(kInfinity, 1, false), 0);
  EXPECT_TRUE(std::isnan(ClipCoefficient(std::nan(""), 1, true)));
}

}  // namespace
}  // namespace shardstep
