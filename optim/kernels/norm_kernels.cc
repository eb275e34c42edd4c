#include "shardstep/optim/kernels/norm_kernels.h"

#include <immintrin.h>

namespace shardstep::CPU_CAPABILITY {
namespace {

#ifdef CPU_CAPABILITY_AVX512

// All lanes.
struct Sums {
  explicit Sums(const NormLanes& lanes)
      : hi(_mm512_loadu_pd(lanes.hi)), lo(_mm512_loadu_pd(lanes.lo)) {}

  void Store(NormLanes* lanes) const {
    _mm512_storeu_pd(lanes->hi, hi);
    _mm512_storeu_pd(lanes->lo, lo);
  }

  void AddSquares(__m256 values) {
    // Without its mask GCC 12 takes it for uninitialized.
    const __m512d wide = _mm512_maskz_cvtps_pd(0xff, values);
    const __m512d square = _mm512_mul_pd(wide, wide);
    const __m512d sum = _mm512_add_pd(hi, square);
    const __m512d part = _mm512_sub_pd(sum, hi);
    const __m512d error =
        _mm512_add_pd(_mm512_sub_pd(hi, _mm512_sub_pd(sum, part)), _mm512_sub_pd(square, part));
    hi = sum;
    lo = _mm512_add_pd(lo, error);
  }

  __m512d hi;
  __m512d lo;
};

#else

// Four of the lanes.
struct Half {
  void AddSquares(__m128 values) {
    const __m256d wide = _mm256_cvtps_pd(values);
    const __m256d square = _mm256_mul_pd(wide, wide);
    const __m256d sum = _mm256_add_pd(hi, square);
    const __m256d part = _mm256_sub_pd(sum, hi);
    const __m256d error =
        _mm256_add_pd(_mm256_sub_pd(hi, _mm256_sub_pd(sum, part)), _mm256_sub_pd(square, part));
    hi = sum;
    lo = _mm256_add_pd(lo, error);
  }

  __m256d hi;
  __m256d lo;
};

struct Sums {
  explicit Sums(const NormLanes& lanes)
      : first{_mm256_loadu_pd(lanes.hi), _mm256_loadu_pd(lanes.lo)},
        second{_mm256_loadu_pd(lanes.hi + 4), _mm256_loadu_pd(lanes.lo + 4)} {}

  void Store(NormLanes* lanes) const {
    _mm256_storeu_pd(lanes->hi, first.hi);
    _mm256_storeu_pd(lanes->lo, first.lo);
    _mm256_storeu_pd(lanes->hi + 4, second.hi);
    _mm256_storeu_pd(lanes->lo + 4, second.lo);
  }

  void AddSquares(__m256 values) {
    first.AddSquares(_mm256_castps256_ps128(values));
    second.AddSquares(_mm256_extractf128_ps(values, 1));
  }

  Half first;
  Half second;
};

#endif

}  // namespace

bool AddSquares(const float* values, int64_t length, NormLanes* lanes) {
  // The CPU's own prefetching ends with the page: without this, memory that is in no cache is read
  // at little more than half the rate.
  constexpr int64_t kAhead = 2048;
  Sums sums(*lanes);
  const __m256i exponent = _mm256_set1_epi32(0x7f800000);
  __m256i infinite = _mm256_setzero_si256();
  for (int64_t i = 0; i < length; i += kNormLanes) {
    __builtin_prefetch(values + i + kAhead);
    const __m256 eight = _mm256_loadu_ps(values + i);
    infinite = _mm256_or_si256(
        infinite,
        _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_castps_si256(eight), exponent), exponent));
    sums.AddSquares(eight);
  }
  sums.Store(lanes);
  return _mm256_testz_si256(infinite, infinite) != 0;
}

}  // namespace shardstep::CPU_CAPABILITY
