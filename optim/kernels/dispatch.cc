#include "shardstep/optim/kernels/dispatch.h"

#include <ATen/Version.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sqrt.h>

#include <cmath>
#include <cstring>
#include <string>

namespace shardstep {
namespace {

// Below the size from which ATen would start threads.
constexpr int64_t kChunk = int64_t{1} << 14;

constexpr uint32_t kOne = 0x3f800000;
constexpr uint32_t kFour = 0x40800000;
constexpr uint32_t kBinade = uint32_t{1} << 23;

bool ieee_roots = false;

// For a CPU without AVX2.
template <typename T>
void PlainSqrt(T* values, int64_t length) {
  for (int64_t i = 0; i < length; ++i) values[i] = std::sqrt(values[i]);
}

bool HasAvx2() { return __builtin_cpu_supports("avx2") != 0; }

class SqrtComparison {
 public:
  explicit SqrtComparison(SqrtFunction<float> function)
      : function_(function),
        inputs_(at::empty({kChunk}, at::kFloat)),
        roots_(at::empty({kChunk}, at::kFloat)) {}

  // Compares the roots of kChunk numbers, whose bits are first, first + 1, ...
  bool Agrees(uint32_t first) {
    auto* inputs = inputs_.mutable_data_ptr<float>();
    for (int64_t i = 0; i < kChunk; ++i) {
      const uint32_t bits = first + static_cast<uint32_t>(i);
      std::memcpy(inputs + i, &bits, sizeof(bits));
    }
    at::sqrt_out(roots_, inputs_);
    function_(inputs, kChunk);
    return std::memcmp(inputs_.const_data_ptr(), roots_.const_data_ptr(), kChunk * sizeof(float)) ==
           0;
  }

 private:
  const SqrtFunction<float> function_;
  const at::Tensor inputs_;
  at::Tensor roots_;
};

bool IsAtenSqrt(SqrtFunction<float> function) {
  SqrtComparison comparison(function);
  for (uint32_t first = kOne; first < kFour; first += kChunk) {
    if (!comparison.Agrees(first)) return false;
  }
  // From denormals to infinity, with NaNs behind it.
  for (uint32_t first = kBinade; first <= 0xff * kBinade; first += kBinade) {
    if (!comparison.Agrees(first - kChunk / 2)) return false;
  }
  return comparison.Agrees(0);
}

}  // namespace

template <>
const Kernels<float>* FindKernels() {
  const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return &AVX512::kFloatKernels;
  return capability == "AVX2" ? &AVX2::kFloatKernels : nullptr;
}

template <>
const Kernels<double>* FindKernels() {
  const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return &AVX512::kDoubleKernels;
  return capability == "AVX2" ? &AVX2::kDoubleKernels : nullptr;
}

template <>
const AdaptiveKernels<float>* FindAdaptiveKernels() {
  const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return &AVX512::kFloatAdaptiveKernels;
  return capability == "AVX2" ? &AVX2::kFloatAdaptiveKernels : nullptr;
}

template <>
const AdaptiveKernels<double>* FindAdaptiveKernels() {
  const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return &AVX512::kDoubleAdaptiveKernels;
  return capability == "AVX2" ? &AVX2::kDoubleAdaptiveKernels : nullptr;
}

void UseIeeeRoots() { ieee_roots = true; }

template <>
SqrtFunction<float> IeeeSqrtIfUsed() {
  if (!ieee_roots) return nullptr;
  return HasAvx2() ? AVX2::SqrtIeee : PlainSqrt<float>;
}

template <>
SqrtFunction<double> IeeeSqrtIfUsed() {
  if (!ieee_roots) return nullptr;
  return HasAvx2() ? AVX2::SqrtIeeeDouble : PlainSqrt<double>;
}

template <>
SqrtFunction<float> FindSqrt() {
  static const SqrtFunction<float> found = []() -> SqrtFunction<float> {
    if (const SqrtFunction<float> ieee = IeeeSqrtIfUsed<float>()) return ieee;
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    if (FindKernels<float>() == nullptr) return nullptr;
    for (const SqrtFunction<float> function : {AVX2::SqrtIeee, AVX2::SqrtGoldschmidt}) {
      if (IsAtenSqrt(function)) return function;
    }
    return nullptr;
  }();
  return found;
}

template <>
SqrtFunction<double> FindSqrt() {
  return IeeeSqrtIfUsed<double>();
}

}  // namespace shardstep
