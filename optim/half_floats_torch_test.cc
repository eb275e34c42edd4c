// The rounding of sharding/half_floats.h against ATen's own.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "shardstep/sharding/half_floats.h"

namespace shardstep {
namespace {

// Every upper half with the lower halves at which rounding decides, of both dtypes.
at::Tensor Boundaries() {
  std::vector<uint32_t> lower = {0x7fff, 0x8000, 0x8001};
  for (uint32_t kept = 0; kept < 8; ++kept) {
    for (uint32_t cut : {0, 1, 0xfff, 0x1000, 0x1001, 0x1fff}) lower.push_back(kept << 13 | cut);
  }
  at::Tensor values = at::empty({static_cast<int64_t>(lower.size()) << 16}, at::kFloat);
  auto* const bits = static_cast<uint32_t*>(values.data_ptr());
  size_t at = 0;
  for (uint32_t upper = 0; upper < 0x10000; ++upper) {
    for (const uint32_t low : lower) bits[at++] = upper << 16 | low;
  }
  return values;
}

template <typename Half>
void ExpectAtensBits(DType dtype, at::ScalarType type) {
  const at::Tensor values = Boundaries();
  const float* const from = values.const_data_ptr<float>();
  std::vector<uint16_t> narrowed(values.numel());
  Narrow(dtype, from, values.numel(), reinterpret_cast<char*>(narrowed.data()));
  const at::Tensor converted = values.to(type);
  const auto* const whole = static_cast<const uint16_t*>(converted.const_data_ptr());
  int64_t differ = 0;
  for (int64_t i = 0; i < values.numel(); ++i) {
    const uint16_t alone = Half(from[i]).x;
    // Of a NaN the tensor's conversion gives other bits than the element's.
    const bool equal = narrowed[i] == alone && (std::isnan(from[i]) || narrowed[i] == whole[i]);
    if (!equal && ++differ < 10) {
      uint32_t bits;
      std::memcpy(&bits, &from[i], sizeof(bits));
      ADD_FAILURE() << std::hex << bits << ": " << narrowed[i] << ", ATen's " << alone << " and "
                    << whole[i];
    }
  }
  EXPECT_EQ(differ, 0);
}

TEST(HalfFloatsTorchTest, BFloat16) {
  ExpectAtensBits<at::BFloat16>(DType::kBFloat16, at::kBFloat16);
}
TEST(HalfFloatsTorchTest, Float16) { ExpectAtensBits<at::Half>(DType::kFloat16, at::kHalf); }

template <typename Half>
void ExpectAtensNumbers(DType dtype) {
  std::vector<uint16_t> bits(0x10000);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint16_t>(i);
  std::vector<float> wide(bits.size());
  Widen(dtype, reinterpret_cast<const char*>(bits.data()), static_cast<int64_t>(bits.size()),
        wide.data());
  for (size_t i = 0; i < bits.size(); ++i) {
    const float expected = Half(bits[i], Half::from_bits());
    EXPECT_TRUE(std::isnan(expected) ? std::isnan(wide[i])
                                     : std::memcmp(&expected, &wide[i], sizeof(float)) == 0)
        << i;
  }
}

TEST(HalfFloatsTorchTest, WidenedBFloat16) { ExpectAtensNumbers<at::BFloat16>(DType::kBFloat16); }
TEST(HalfFloatsTorchTest, WidenedFloat16) { ExpectAtensNumbers<at::Half>(DType::kFloat16); }

}  // namespace
}  // namespace shardstep
