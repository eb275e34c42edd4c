#include "shardstep/tests/bench/reference/transfer_tensors.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace shardstep {
namespace {

// Acknowledgements and requests of a whole window must fit into what a connection buffers, so that
// a side that only writes cannot block one that does the same.
constexpr int kMostWindow = 1024;

// float32 has 24 bits: with steps of 2^-10 all values below 2^14 are exact.
constexpr int64_t kMostSteps = int64_t{1} << 24;

float Expected(size_t tensor, int64_t steps) {
  const double value = static_cast<double>(tensor) - double{kTransferLearningRate} * steps;
  return static_cast<float>(value);
}

}  // namespace

absl::Status Validate(const TransferWorkload& workload) {
  if (workload.bytes <= 0 || workload.bytes % sizeof(float) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("bytes: expected a positive multiple of 4, got ", workload.bytes));
  }
  if (workload.window < 1 || workload.window > kMostWindow) {
    return absl::InvalidArgumentError(
        absl::StrCat("window: expected 1 to ", kMostWindow, ", got ", workload.window));
  }
  if (workload.streams < 1 || workload.streams > workload.tensors) {
    return absl::InvalidArgumentError(absl::StrCat("streams: expected 1 to the number of tensors, ",
                                                   workload.tensors, ", got ", workload.streams));
  }
  return absl::OkStatus();
}

std::vector<int> TensorsOfStream(const TransferWorkload& workload, int stream) {
  std::vector<int> tensors;
  for (int i = stream; i < workload.tensors; i += workload.streams) tensors.push_back(i);
  return tensors;
}

int WindowOfStream(const TransferWorkload& workload) {
  return std::max(1, workload.window / workload.streams);
}

TransferTensors InitialParameters(const TransferWorkload& workload) {
  TransferTensors tensors;
  for (int i = 0; i < workload.tensors; ++i) {
    tensors.emplace_back(workload.bytes / sizeof(float), static_cast<float>(i));
  }
  return tensors;
}

TransferTensors Gradients(const TransferWorkload& workload) {
  return {static_cast<size_t>(workload.tensors),
          std::vector<float>(workload.bytes / sizeof(float), 1.0F)};
}

void ApplySgd(const char* __restrict gradient, int64_t elements, float* __restrict parameters) {
  for (int64_t i = 0; i < elements; ++i) {
    float slope;
    std::memcpy(&slope, gradient + i * sizeof(float), sizeof(float));
    parameters[i] -= kTransferLearningRate * slope;
  }
}

absl::Status CheckParameters(const TransferTensors& parameters, int64_t fewest, int64_t most) {
  if (most + 1024 * static_cast<int64_t>(parameters.size()) > kMostSteps) {
    return absl::OutOfRangeError(absl::StrCat(most, " steps are too many for exact values"));
  }
  for (size_t tensor = 0; tensor < parameters.size(); ++tensor) {
    const std::vector<float>& values = parameters[tensor];
    const float highest = Expected(tensor, fewest);
    const float lowest = Expected(tensor, most);
    for (size_t i = 0; i < values.size(); ++i) {
      const float steps = (highest - values[i]) / kTransferLearningRate;
      // Written so that a NaN is wrong too.
      if (values[i] >= lowest && values[i] <= highest && steps == static_cast<int64_t>(steps)) {
        continue;
      }
      return absl::DataLossError(absl::StrCat("tensor ", tensor, ", element ", i, ": expected ",
                                              lowest, " to ", highest, ", got ", values[i]));
    }
  }
  return absl::OkStatus();
}

}  // namespace shardstep
