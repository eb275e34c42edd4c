// The part of shardstep_bench about steps: latencies, steps per second, what a step costs beyond
// its transfers and its arithmetic, memory, and how all of it grows.
#ifndef SHARDSTEP_TESTS_BENCH_STEP_FIGURES_H_
#define SHARDSTEP_TESTS_BENCH_STEP_FIGURES_H_

#include <string>

#include "absl/status/status.h"
#include "shardstep/tests/bench/comparison.h"
#include "shardstep/tests/bench/measure.h"
#include "shardstep/tests/bench/report.h"

namespace shardstep {

// Each adds its figures and bars to `report`, and blocks.
absl::Status MeasureLatencies(const MeasureOptions& options, Report* report);
absl::Status MeasureAsynchronous(const MeasureOptions& options, Report* report);
// `rates`: of transfers of 4 MiB, from the same run.
absl::Status MeasureWholeStep(const MeasureOptions& options, const Rates& rates, Report* report);
absl::Status MeasureLog(const MeasureOptions& options, Report* report);
absl::Status MeasureGrowth(const MeasureOptions& options, Report* report);
// Runs `program`, which is this one, as a child that pushes for options.duration, with and without
// checksums.
absl::Status MeasureChecksums(const MeasureOptions& options, const std::string& program,
                              Report* report);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_STEP_FIGURES_H_
