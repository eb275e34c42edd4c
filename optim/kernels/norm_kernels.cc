#include "shardstep/optim/kernels/norm_kernels.h"

#include <immintrin.h>

namespace shardstep {
namespace AVX2 {
namespace {

// Four of the lanes.
struct Half {
  __m256d hi;
  __m256d lo;
};

inline void Add(__m128 values, Half* sums) {
  const __m256d wide = _mm256_cvtps_pd(values);
  const __m256d square = _mm256_mul_pd(wide, wide);
  const __m256d sum = _mm256_add_pd(sums->hi, square);
  const __m256d part = _mm256_sub_pd(sum, sums->hi);
  const __m256d error =
      _mm256_add_pd(_mm256_sub_pd(sums->hi, _mm256_sub_pd(sum, part)), _mm256_sub_pd(square, part));
  sums->hi = sum;
  sums->lo = _mm256_add_pd(sums->lo, error);
}

}  // namespace

bool AddSquares(const float* values, int64_t length, NormLanes* lanes) {
  Half first = {_mm256_loadu_pd(lanes->hi), _mm256_loadu_pd(lanes->lo)};
  Half second = {_mm256_loadu_pd(lanes->hi + 4), _mm256_loadu_pd(lanes->lo + 4)};
  const __m256i exponent = _mm256_set1_epi32(0x7f800000);
  __m256i infinite = _mm256_setzero_si256();
  for (int64_t i = 0; i < length; i += kNormLanes) {
    const __m256 eight = _mm256_loadu_ps(values + i);
    infinite = _mm256_or_si256(
        infinite,
        _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_castps_si256(eight), exponent), exponent));
    Add(_mm256_castps256_ps128(eight), &first);
    Add(_mm256_extractf128_ps(eight, 1), &second);
  }
  _mm256_storeu_pd(lanes->hi, first.hi);
  _mm256_storeu_pd(lanes->lo, first.lo);
  _mm256_storeu_pd(lanes->hi + 4, second.hi);
  _mm256_storeu_pd(lanes->lo + 4, second.lo);
  return _mm256_testz_si256(infinite, infinite) != 0;
}

}  // namespace AVX2
}  // namespace shardstep
