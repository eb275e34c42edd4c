// A training run on a fleet of its own: real server processes, trainers as threads of this process,
// each with its own client and its own connections.
//
//   TrainingOptions options;
//   options.servers = 2;
//   SHARDSTEP_ASSIGN_OR_RETURN(const TrainingResult result, RunTraining(options));
#ifndef SHARDSTEP_TESTS_BENCH_TRAINING_H_
#define SHARDSTEP_TESTS_BENCH_TRAINING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "shardstep/optim/options/optimizer_options.h"

namespace shardstep {

struct TrainingOptions {
  int servers = 1;
  int trainers = 1;
  int parameters = 40;
  int64_t bytes = 1 << 20;  // of each parameter, float32
  // All trainers in every step; else each steps by itself.
  bool synchronous = true;
  // Each step is followed by a pull.
  bool pull = false;
  // Gradients are pushed before each step; else steps have none.
  bool push = true;
  // All trainers are handles of one client, and share its connections.
  bool one_client = false;
  OptimizerOptions optimizer = SGDOptions(1.0 / 1024);
  std::string durability = "none";
  int threads = 2;  // that do the tensor work, of each server
  absl::Duration warm_up = absl::Milliseconds(300);
  absl::Duration duration = absl::Seconds(2);  // at least: three rounds of each trainer count
};

struct TrainingResult {
  // Steps that committed in the measured time, per second.
  double steps_per_second = 0;
  // Bytes of gradients pushed by all trainers to all servers, per second.
  double pushed_per_second = 0;
  // Seconds, one for each measured round of each trainer.
  std::vector<double> rounds;
  // Seconds from the creation's begin until the first trainer had its handle.
  double creation = 0;
  // By server: the process's peak of resident memory, in bytes, and its processor time in seconds
  // per measured second.
  std::vector<int64_t> peaks;
  std::vector<double> cores;
};

// Starts the fleet, trains, and compares every element of the parameters with what plain SGD
// must have made of it (of another optimizer: that all are finite). DATA_LOSS: they differ. Blocks.
absl::StatusOr<TrainingResult> RunTraining(const TrainingOptions& options);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_TRAINING_H_
