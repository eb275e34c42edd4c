// TransferSubject: what the comparison of transports measures. Each subject (shardstep, raw TCP,
// textbook gRPC) has a server process and a client in this process, and transfers the same tensors
// over loopback.
//
// Confined to one thread. A subject owns its server and both sides' tensors; every call blocks, and
// ends with an error if the server ends or is silent for too long.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_TRANSFER_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_TRANSFER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace shardstep {

struct TransferWorkload {
  int tensors = 40;         // distinct ones
  int64_t bytes = 1 << 20;  // of each, a multiple of 4; float32
  int window = 40;          // tensors in flight at most, in each direction
  int streams = 1;          // connections (or streams), each with its share of tensors and window
};

class TransferSubject {
 public:
  virtual ~TransferSubject() = default;

  // Each transfers tensors round and round for about `duration`, whole rounds of all tensors and
  // one round at least, and returns tensors per second.

  // Gradients of ones to the server, until all are acknowledged.
  virtual absl::StatusOr<double> Push(absl::Duration duration) = 0;
  // Parameters into the client's buffers.
  virtual absl::StatusOr<double> Pull(absl::Duration duration) = 0;
  // Each round pushes all and pulls all, both directions in flight at once. Tensors of one
  // direction per second.
  virtual absl::StatusOr<double> PushPull(absl::Duration duration) = 0;

  // Compares every element at the client after a pull with its exact expected value. DATA_LOSS:
  // says which is wrong.
  virtual absl::Status Check() = 0;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_TRANSFER_H_
