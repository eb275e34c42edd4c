// Sums in compensated float64: hi + lo carries about twice the digits of a double, so that a sum,
// once rounded, does not depend on the order of its terms nor on how they were cut into shards.
// Pure functions of plain numbers, safe from any thread; no ATen.
//
// Relies on -ffp-contract=off (.bazelrc): a fused multiply-add would spoil the error terms.
#ifndef SHARDSTEP_OPTIM_COMPENSATED_SUM_H_
#define SHARDSTEP_OPTIM_COMPENSATED_SUM_H_

#include <cmath>

namespace shardstep {

// An unevaluated sum hi + lo with |lo| at most half a unit in the last place of hi. Where hi is
// infinite or NaN, lo is 0.
struct CompensatedSum {
  double hi = 0;
  double lo = 0;
};

inline bool operator==(const CompensatedSum& a, const CompensatedSum& b) {
  return a.hi == b.hi && a.lo == b.lo;
}

// Knuth: sum + error == a + b exactly.
inline double TwoSum(double a, double b, double* error) {
  const double sum = a + b;
  const double b_part = sum - a;
  *error = (a - (sum - b_part)) + (b - b_part);
  return sum;
}

// The same where |a| >= |b|.
inline double FastTwoSum(double a, double b, double* error) {
  const double sum = a + b;
  *error = b - (sum - a);
  return sum;
}

// The square of a float, which a double holds exactly.
inline double Square(float value, double* error) {
  *error = 0;
  return static_cast<double>(value) * value;
}

// Veltkamp and Dekker: square + error == value * value exactly, barring overflow and underflow.
inline double Square(double value, double* error) {
  constexpr double kSplitter = 134217729;  // 2^27 + 1
  const double scaled = kSplitter * value;
  const double high = scaled - (scaled - value);
  const double low = value - high;
  const double square = value * value;
  *error = ((high * high - square) + 2 * high * low) + low * low;
  return square;
}

// hi + lo with the parts made small again.
inline CompensatedSum Settled(double hi, double lo) {
  // Past an overflow the error terms are NaN and mean nothing.
  if (!std::isfinite(hi)) return {hi, 0};
  CompensatedSum settled;
  settled.hi = FastTwoSum(hi, lo, &settled.lo);
  return settled;
}

// The sum of two. Add in one agreed order: blocks by element, shards by plan.
inline CompensatedSum Sum(const CompensatedSum& a, const CompensatedSum& b) {
  double hi_error = 0;
  double lo_error = 0;
  const double hi = TwoSum(a.hi, b.hi, &hi_error);
  const double lo = TwoSum(a.lo, b.lo, &lo_error);
  const CompensatedSum first = Settled(hi, hi_error + lo);
  return Settled(first.hi, first.lo + lo_error);
}

}  // namespace shardstep

#endif  // SHARDSTEP_OPTIM_COMPENSATED_SUM_H_
