// The tensors of a TransferWorkload and the arithmetic on them. Parameters of tensor i start at i,
// gradients are 1, and the learning rate is a power of two: after any number of steps that a
// measurement can reach each parameter has one exact value in float32.
//
// Pure functions, safe from any thread; none blocks.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_TRANSFER_TENSORS_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_TRANSFER_TENSORS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "shardstep/tests/bench/reference/transfer.h"

namespace shardstep {

inline constexpr float kTransferLearningRate = 1.0F / 1024;

// INVALID_ARGUMENT says what a workload may not be.
absl::Status Validate(const TransferWorkload& workload);

// The tensors that the stream transfers, in their order; at least one.
std::vector<int> TensorsOfStream(const TransferWorkload& workload, int stream);
// The part of the window that is each stream's; at least 1.
int WindowOfStream(const TransferWorkload& workload);

using TransferTensors = std::vector<std::vector<float>>;

TransferTensors InitialParameters(const TransferWorkload& workload);
TransferTensors Gradients(const TransferWorkload& workload);

// parameters[i] -= kTransferLearningRate * gradient[i], where `gradient` is the memory of floats
// and lies anywhere.
void ApplySgd(const char* gradient, int64_t elements, float* parameters);

// Judges each element by itself. DATA_LOSS: it is not what any number of steps from `fewest` to
// `most` makes of it. OUT_OF_RANGE: after as many steps there is no exact value.
absl::Status CheckParameters(const TransferTensors& parameters, int64_t fewest, int64_t most);

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_TRANSFER_TENSORS_H_
