// Latencies of a trainer's calls, one at a time.
#ifndef SHARDSTEP_TESTS_BENCH_LATENCIES_H_
#define SHARDSTEP_TESTS_BENCH_LATENCIES_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace shardstep {

// Seconds, one for each round, by what was timed: "unary call" (Hello at server 0), "push" (until
// all servers have acknowledged), "step" (the call, through prepare and commit), "pull".
using Latencies = std::map<std::string, std::vector<double>>;

// `rounds` rounds on a fleet of its own, of real servers; plain SGD, one trainer. Blocks.
absl::StatusOr<Latencies> MeasureLatenciesOnce(int servers, int tensors, int64_t bytes, int rounds);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_LATENCIES_H_
