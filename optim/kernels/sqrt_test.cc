// The roots of kernels against at::sqrt's.

#include <ATen/Version.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sqrt.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "shardstep/optim/kernels/dispatch.h"
#include "shardstep/optim/kernels/roots.h"

namespace shardstep {
namespace {

std::vector<float> FromBits(const std::vector<uint32_t>& bits) {
  std::vector<float> values(bits.size());
  std::memcpy(values.data(), bits.data(), bits.size() * sizeof(float));
  return values;
}

// Elements in which `function` and at::sqrt differ, NaNs being one number.
int64_t Differences(SqrtFunction<float> function, const std::vector<float>& inputs) {
  const auto size = static_cast<int64_t>(inputs.size());
  at::Tensor expected = at::empty({size}, at::kFloat);
  std::memcpy(expected.mutable_data_ptr<float>(), inputs.data(), inputs.size() * sizeof(float));
  at::sqrt_out(expected, expected);
  std::vector<float> roots = inputs;
  function(roots.data(), size);
  int64_t differences = 0;
  for (int64_t i = 0; i < size; ++i) {
    const float* root = expected.const_data_ptr<float>() + i;
    if (std::isnan(*root) && std::isnan(roots[i])) continue;
    if (std::memcmp(root, &roots[i], sizeof(float)) != 0) ++differences;
  }
  return differences;
}

TEST(SqrtTest, WithoutFusedMultiplyAddThereAreNoKernels) {
  const bool has_kernels = at::get_cpu_capability() != "DEFAULT";
  EXPECT_EQ(FindKernels<float>() != nullptr, has_kernels);
  EXPECT_EQ(FindKernels<double>() != nullptr, has_kernels);
  if (!has_kernels) {
    EXPECT_EQ(FindSqrt<float>(), nullptr);
  }
}

TEST(SqrtTest, AFoundFunctionAgreesOnNumbersOfAllKinds) {
  const SqrtFunction<float> function = FindSqrt<float>();
  if (function == nullptr) GTEST_SKIP() << "at::sqrt is none of the kernels' roots here";
  std::mt19937 random(1);
  std::vector<uint32_t> bits = {0,          0x80000000, 1,          0x007fffff, 0x00800000,
                                0x7f7fefff, 0x7f7ff000, 0x7f7fffff, 0x7f800000, 0x7f800001,
                                0x7fc00000, 0xff800000, 0xbf800000, 0x80000001};
  for (int i = 0; i < 1 << 18; ++i) {
    const auto word = static_cast<uint32_t>(random());
    // Without the sign and with an exponent that is not 0: at::sqrt is slow with the rest.
    bits.push_back((word & 0x7fffffff) | 0x00800000);
  }
  EXPECT_EQ(Differences(function, FromBits(bits)), 0);
}

TEST(SqrtTest, AFoundFunctionAgreesAtEveryLength) {
  const SqrtFunction<float> function = FindSqrt<float>();
  if (function == nullptr) GTEST_SKIP() << "at::sqrt is none of the kernels' roots here";
  for (size_t length = 0; length <= 70; ++length) {
    std::vector<float> inputs(length);
    for (size_t i = 0; i < length; ++i) inputs[i] = i % 7 == 3 ? 0.0f : 0.3f * (i + 1);
    EXPECT_EQ(Differences(function, inputs), 0) << length;
  }
}

// One of the two is what MKL computes on the CPUs known so far; on another, Roots goes to at::sqrt.
TEST(SqrtTest, RootsAreAtensWhicheverWayTheyAreTaken) {
  for (const SqrtFunction<float> function : {FindSqrt<float>(), SqrtFunction<float>{nullptr}}) {
    Roots<float> roots(function);
    at::Tensor expected = at::empty({roots.size()}, at::kFloat);
    for (const int64_t length : {roots.size(), int64_t{13}}) {
      for (int64_t i = 0; i < length; ++i) {
        roots.data()[i] = expected.mutable_data_ptr<float>()[i] = 1e-3f * i;
      }
      at::Tensor part = expected.narrow(0, 0, length);
      at::sqrt_out(part, part);
      roots.Take(length);
      EXPECT_EQ(std::memcmp(roots.data(), part.const_data_ptr<float>(), length * sizeof(float)), 0);
    }
  }
}

}  // namespace
}  // namespace shardstep
