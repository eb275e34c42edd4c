// Roots before and after this process decides for IEEE's: the tests are one, in this order.

#include "shardstep/optim/square_root.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>

#include "shardstep/optim/kernels/roots.h"

namespace shardstep {
namespace {

// All mantissas over two binades, then numbers of every size and the special ones.
at::Tensor Floats() {
  constexpr uint32_t kOne = 0x3f800000;
  constexpr int64_t kTwoBinades = int64_t{1} << 24;
  constexpr int64_t kOthers = 1 << 16;
  at::Tensor tensor = at::empty({kTwoBinades + kOthers}, at::kFloat);
  auto* const data = tensor.mutable_data_ptr<float>();
  std::mt19937 random(1);
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    const uint32_t bits =
        i < kTwoBinades ? kOne + static_cast<uint32_t>(i) : static_cast<uint32_t>(random());
    std::memcpy(data + i, &bits, sizeof(bits));
  }
  return tensor;
}

at::Tensor Doubles() {
  at::Tensor tensor = at::empty({(1 << 16) + 3}, at::kDouble);
  auto* const data = tensor.mutable_data_ptr<double>();
  std::mt19937_64 random(1);
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    const uint64_t bits = random();
    std::memcpy(data + i, &bits, sizeof(bits));
  }
  data[0] = -0.0;
  data[1] = std::numeric_limits<double>::denorm_min();
  data[2] = std::numeric_limits<double>::infinity();
  return tensor;
}

// Elements whose root is not the one that `root_of` gives, NaNs being one number.
template <typename T, typename RootOf>
int64_t Differences(const at::Tensor& inputs, const at::Tensor& roots, const RootOf& root_of) {
  const T* const x = inputs.const_data_ptr<T>();
  const T* const y = roots.const_data_ptr<T>();
  int64_t differences = 0;
  for (int64_t i = 0; i < inputs.numel(); ++i) {
    const T root = root_of(i, x[i]);
    if (std::isnan(root) && std::isnan(y[i])) continue;
    const void* const actual = y + i;
    differences += std::memcmp(&root, actual, sizeof(T)) != 0;
  }
  return differences;
}

template <typename T>
at::Tensor ByRoots(const at::Tensor& inputs) {
  at::Tensor all = inputs.clone();
  Roots<T> roots(FindSqrt<T>());
  for (int64_t begin = 0; begin < all.numel(); begin += roots.size()) {
    const int64_t length = std::min(roots.size(), all.numel() - begin);
    T* const part = all.mutable_data_ptr<T>() + begin;
    std::memcpy(roots.data(), part, length * sizeof(T));
    roots.Take(length);
    std::memcpy(part, roots.data(), length * sizeof(T));
  }
  return all;
}

template <typename T>
void ExpectIeee(const at::Tensor& inputs) {
  const auto ieee = [](int64_t, T value) { return std::sqrt(value); };
  EXPECT_EQ(Differences<T>(inputs, Sqrt(inputs), ieee), 0);
  EXPECT_EQ(Differences<T>(inputs, SqrtInPlace(inputs.clone()), ieee), 0);
  EXPECT_EQ(Differences<T>(inputs, ByRoots<T>(inputs), ieee), 0);
}

TEST(SquareRootTest, IsAtensAndAfterUseIeeeRootsIeees) {
  const at::Tensor floats = Floats().narrow(0, 0, 1 << 16).clone();
  const at::Tensor expected = at::sqrt(floats);
  const auto atens = [&](int64_t i, float) { return expected.const_data_ptr<float>()[i]; };
  EXPECT_EQ(Differences<float>(floats, Sqrt(floats), atens), 0);
  EXPECT_EQ(Differences<float>(floats, SqrtInPlace(floats.clone()), atens), 0);
  UseIeeeRoots();
  ExpectIeee<float>(Floats());
  ExpectIeee<double>(Doubles());
}

}  // namespace
}  // namespace shardstep
