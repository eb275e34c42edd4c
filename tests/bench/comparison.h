// The side-by-side part of shardstep_bench: transfers of tensors by shardstep, raw TCP, textbook
// gRPC and plain memory, interleaved in one run.
#ifndef SHARDSTEP_TESTS_BENCH_COMPARISON_H_
#define SHARDSTEP_TESTS_BENCH_COMPARISON_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "shardstep/tests/bench/measure.h"
#include "shardstep/tests/bench/report.h"

namespace shardstep {

struct ComparisonOptions {
  std::string program;  // this one: shardstep_bench, for the children (subjects.h)
  std::vector<int64_t> sizes = {1 << 10, 64 << 10, 1 << 20, 4 << 20};
  int tensors = 40;
  int window = 40;  // tensors in flight; 16 times as many of those below 64 KiB
  int streams = 1;
  int trainers = 2;  // whose steps are in flight together
};

// Tensors per second, one for each repeat, by the name of what was measured; of one size.
using Rates = std::map<std::string, std::vector<double>>;

// Measures and adds figures and bars to `report`. Blocks. Returns the rates by size. DATA_LOSS:
// some subject transferred wrong values.
absl::StatusOr<std::map<int64_t, Rates>> Compare(const ComparisonOptions& options,
                                                 const MeasureOptions& measure, Report* report);

// The median over the repeats of a's rate by b's, each of one repeat.
double RatioOf(const Rates& rates, const std::string& a, const std::string& b);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_COMPARISON_H_
