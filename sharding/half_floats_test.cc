#include "shardstep/sharding/half_floats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace shardstep {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

uint16_t Narrowed(DType dtype, float value) {
  uint16_t bits;
  Narrow(dtype, &value, 1, reinterpret_cast<char*>(&bits));
  return bits;
}

float Widened(DType dtype, uint16_t bits) {
  float value;
  Widen(dtype, reinterpret_cast<const char*>(&bits), 1, &value);
  return value;
}

class HalfFloatsTest : public testing::TestWithParam<DType> {
 protected:
  int mantissa_bits() const { return GetParam() == DType::kBFloat16 ? 7 : 10; }
  uint16_t infinity() const { return GetParam() == DType::kBFloat16 ? 0x7f80 : 0x7c00; }

  // What IEEE 754 says that the bits mean, NaN apart.
  double Meaning(uint16_t bits) const {
    const int exponent = (bits & 0x7fff) >> mantissa_bits();
    const int mantissa = bits & ((1 << mantissa_bits()) - 1);
    const int bias = (infinity() >> mantissa_bits()) / 2;
    const double magnitude = (bits & 0x7fff) == infinity() ? kInfinity
                             : exponent == 0 ? std::ldexp(mantissa, 1 - bias - mantissa_bits())
                                             : std::ldexp(mantissa + (1 << mantissa_bits()),
                                                          exponent - bias - mantissa_bits());
    return (bits & 0x8000) != 0 ? -magnitude : magnitude;
  }
};

TEST_P(HalfFloatsTest, EveryNumberIsWidenedExactlyAndComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = Widened(GetParam(), bits);
    if ((bits & 0x7fff) > infinity()) {
      EXPECT_TRUE(std::isnan(value)) << bits;
      const uint16_t back = Narrowed(GetParam(), value);
      EXPECT_GT(back & 0x7fff, infinity()) << bits;
      continue;
    }
    EXPECT_EQ(value, Meaning(bits)) << bits;
    EXPECT_EQ(std::signbit(value), (bits & 0x8000) != 0) << bits;
    EXPECT_EQ(Narrowed(GetParam(), value), bits);
  }
}

// Between each two neighbours: the middle goes to the even one, what lies beside it to the nearer.
TEST_P(HalfFloatsTest, RoundsToTheNearestAndFromTheMiddleToTheEven) {
  for (uint16_t sign : {0, 0x8000}) {
    for (uint16_t low = 0; low < infinity(); ++low) {
      const double below = Meaning(low);
      // Behind the largest number as if there were one more.
      const double above = low + 1 < infinity() ? Meaning(low + 1) : 2 * below - Meaning(low - 1);
      const float middle = static_cast<float>((below + above) / 2);
      const auto narrowed = [&](float magnitude) {
        return Narrowed(GetParam(), sign != 0 ? -magnitude : magnitude);
      };
      EXPECT_EQ(narrowed(middle), sign | (low % 2 == 0 ? low : low + 1)) << low;
      EXPECT_EQ(narrowed(std::nextafter(middle, 0.0f)), sign | low) << low;
      EXPECT_EQ(narrowed(std::nextafter(middle, kInfinity)), sign | (low + 1)) << low;
    }
  }
}

TEST_P(HalfFloatsTest, WhatIsFarTooLargeBecomesInfinite) {
  for (float value : {std::numeric_limits<float>::max(), kInfinity}) {
    EXPECT_EQ(Narrowed(GetParam(), value), infinity());
    EXPECT_EQ(Narrowed(GetParam(), -value), infinity() | 0x8000);
  }
}

TEST_P(HalfFloatsTest, ANumberHasTheSameBitsWhereverItStands) {
  std::vector<float> values;
  for (int i = 0; i < 70; ++i) values.push_back(std::ldexp(1.0f + 0.013f * i, i % 40 - 30));
  values[17] = std::numeric_limits<float>::quiet_NaN();
  values[69] = -kInfinity;
  std::vector<char> memory(2 * values.size() + 1);
  for (size_t begin = 0; begin <= values.size(); ++begin) {
    // Odd addresses too.
    char* const to = memory.data() + begin % 2;
    const int64_t count = static_cast<int64_t>(values.size() - begin);
    Narrow(GetParam(), values.data() + begin, count, to);
    std::vector<float> wide(count);
    Widen(GetParam(), to, count, wide.data());
    for (int64_t i = 0; i < count; ++i) {
      uint16_t bits;
      std::memcpy(&bits, to + 2 * i, sizeof(bits));
      EXPECT_EQ(bits, Narrowed(GetParam(), values[begin + i])) << begin << " " << i;
      const float alone = Widened(GetParam(), bits);
      EXPECT_EQ(std::memcmp(&wide[i], &alone, sizeof(alone)), 0) << begin << " " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, HalfFloatsTest,
                         testing::Values(DType::kBFloat16, DType::kFloat16));

}  // namespace
}  // namespace shardstep
