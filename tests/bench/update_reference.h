// What a step's arithmetic takes by itself: an optimizer's update in this process, as a server does
// it, without a server.
#ifndef SHARDSTEP_TESTS_BENCH_UPDATE_REFERENCE_H_
#define SHARDSTEP_TESTS_BENCH_UPDATE_REFERENCE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "shardstep/optim/options/optimizer_options.h"

namespace shardstep {

// Median seconds of one update of `tensors` tensors of `elements` float32 elements each, spread
// over `threads` threads by blocks. Blocks.
absl::StatusOr<double> UpdateSeconds(const OptimizerOptions& optimizer, int tensors,
                                     int64_t elements, int threads, int repeats);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_UPDATE_REFERENCE_H_
