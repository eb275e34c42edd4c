// What the benchmarks have in common.
#ifndef SHARDSTEP_TESTS_BENCH_MEASURE_H_
#define SHARDSTEP_TESTS_BENCH_MEASURE_H_

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace shardstep {

// Settings of all parts of shardstep_bench.
struct MeasureOptions {
  int repeats = 3;
  bool bars_only = false;                      // what no bar is about is left out
  absl::Duration duration = absl::Seconds(3);  // of each measurement
};

// 0 to 1, of at least one value.
inline double Quantile(std::vector<double> values, double quantile) {
  std::sort(values.begin(), values.end());
  const auto at = static_cast<size_t>(quantile * static_cast<double>(values.size()));
  return values[std::min(at, values.size() - 1)];
}

inline double Median(std::vector<double> values) { return Quantile(std::move(values), 0.5); }

inline double SecondsOf(const std::function<void()>& work) {
  const absl::Time begin = absl::Now();
  work();
  return absl::ToDoubleSeconds(absl::Now() - begin);
}

// Ends the benchmark where something fails that it needs.
inline void Must(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_MEASURE_H_
