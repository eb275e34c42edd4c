#include "shardstep/sharding/half_floats.h"

#include <cstring>

namespace shardstep {
namespace {

constexpr uint32_t kInfinity = 0x7f800000;
// Between float32's exponent and float16's.
constexpr uint32_t kRebias = 112u << 23;
// 2^-14, float16's smallest normal number, and 2^16, the first power of two beyond it.
constexpr uint32_t kSmallestNormal = 113u << 23;
constexpr uint32_t kTooLarge = 143u << 23;

uint32_t BitsOf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

float FloatOf(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Without a branch, so that loops become vector instructions.
uint32_t Select(bool first, uint32_t a, uint32_t b) {
  const uint32_t mask = -static_cast<uint32_t>(first);
  return (a & mask) | (b & ~mask);
}

float FromBFloat16(uint16_t bits) { return FloatOf(uint32_t{bits} << 16); }

float FromFloat16(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16;
  const uint32_t magnitude = bits & 0x7fffu;
  const uint32_t denormal = BitsOf(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f);
  const uint32_t normal = (magnitude << 13) + kRebias;
  const uint32_t special = (magnitude << 13) | kInfinity;
  return FloatOf(sign |
                 Select(magnitude < 0x7c00, Select(magnitude < 0x400, denormal, normal), special));
}

// Adding half of what is cut off, less one where the kept part is even, carries where it rounds up.
uint16_t ToBFloat16(float value) {
  const uint32_t bits = BitsOf(value);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return static_cast<uint16_t>(Select((bits & 0x7fffffff) > kInfinity, 0x7fc0, rounded));
}

uint16_t ToFloat16(float value) {
  const uint32_t bits = BitsOf(value);
  const uint32_t magnitude = bits & 0x7fffffff;
  // One ulp of a float32 in [0.5, 1) is 2^-24, float16's smallest denormal: the sum is rounded to
  // multiples of it.
  const uint32_t denormal = BitsOf(FloatOf(magnitude) + 0.5f) - BitsOf(0.5f);
  const uint32_t normal = (magnitude - kRebias + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  const uint32_t finite = Select(magnitude < kSmallestNormal, denormal, normal);
  const uint32_t special = Select(magnitude > kInfinity, 0x7e00, 0x7c00);
  return static_cast<uint16_t>(((bits >> 16) & 0x8000) |
                               Select(magnitude < kTooLarge, finite, special));
}

template <float (*kConvert)(uint16_t)>
void WidenEach(const char* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, from + i * sizeof(bits), sizeof(bits));
    to[i] = kConvert(bits);
  }
}

template <uint16_t (*kConvert)(float)>
void NarrowEach(const float* from, int64_t count, char* to) {
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t bits = kConvert(from[i]);
    std::memcpy(to + i * sizeof(bits), &bits, sizeof(bits));
  }
}

}  // namespace

void Widen(DType dtype, const char* from, int64_t count, float* to) {
  if (dtype == DType::kBFloat16) {
    WidenEach<FromBFloat16>(from, count, to);
  } else {
    WidenEach<FromFloat16>(from, count, to);
  }
}

void Narrow(DType dtype, const float* from, int64_t count, char* to) {
  if (dtype == DType::kBFloat16) {
    NarrowEach<ToBFloat16>(from, count, to);
  } else {
    NarrowEach<ToFloat16>(from, count, to);
  }
}

}  // namespace shardstep
