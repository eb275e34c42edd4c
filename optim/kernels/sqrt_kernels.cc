#include <immintrin.h>

#include "shardstep/optim/kernels/kernels.h"

namespace shardstep {
namespace AVX2 {
namespace {

constexpr int64_t kWidth = 8;

inline __m256 GoldschmidtSqrt(__m256 x) {
  const __m256 half = _mm256_set1_ps(0.5f);
  const __m256 estimate = _mm256_rsqrt_ps(x);
  __m256 root = _mm256_mul_ps(x, estimate);
  __m256 half_reciprocal = _mm256_mul_ps(half, estimate);
  const __m256 error = _mm256_sub_ps(half, _mm256_mul_ps(root, half_reciprocal));
  root = _mm256_add_ps(root, _mm256_mul_ps(root, error));
  half_reciprocal = _mm256_add_ps(half_reciprocal, _mm256_mul_ps(half_reciprocal, error));
  const __m256 rest = _mm256_sub_ps(x, _mm256_mul_ps(root, root));
  root = _mm256_add_ps(root, _mm256_mul_ps(half_reciprocal, rest));
  // Zeros, denormals, infinity, NaN and the last 4,096 numbers before infinity.
  const __m256 end = _mm256_castsi256_ps(_mm256_set1_epi32(0x7f7ff000));
  const __m256 ordinary =
      _mm256_and_ps(_mm256_cmp_ps(x, _mm256_set1_ps(1.17549435e-38f), _CMP_GE_OQ),
                    _mm256_cmp_ps(x, end, _CMP_LT_OQ));
  if (_mm256_movemask_ps(ordinary) == 0xff) return root;
  return _mm256_blendv_ps(_mm256_sqrt_ps(x), root, ordinary);
}

template <__m256 (*kSqrt)(__m256)>
void InPlace(float* values, int64_t length) {
  int64_t i = 0;
  for (; i + kWidth <= length; i += kWidth) {
    _mm256_storeu_ps(values + i, kSqrt(_mm256_loadu_ps(values + i)));
  }
  for (; i < length; ++i) {
    values[i] = _mm256_cvtss_f32(kSqrt(_mm256_set1_ps(values[i])));
  }
}

inline __m256 IeeeSqrt(__m256 x) { return _mm256_sqrt_ps(x); }

}  // namespace

void SqrtIeee(float* values, int64_t length) { InPlace<IeeeSqrt>(values, length); }

void SqrtIeeeDouble(double* values, int64_t length) {
  int64_t i = 0;
  for (; i + kWidth / 2 <= length; i += kWidth / 2) {
    _mm256_storeu_pd(values + i, _mm256_sqrt_pd(_mm256_loadu_pd(values + i)));
  }
  for (; i < length; ++i) {
    values[i] = _mm256_cvtsd_f64(_mm256_sqrt_pd(_mm256_set1_pd(values[i])));
  }
}

void SqrtGoldschmidt(float* values, int64_t length) { InPlace<GoldschmidtSqrt>(values, length); }

}  // namespace AVX2
}  // namespace shardstep
