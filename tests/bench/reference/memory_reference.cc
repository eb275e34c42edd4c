#include "shardstep/tests/bench/reference/memory_reference.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "shardstep/sharding/status_macros.h"
#include "shardstep/tests/bench/reference/rounds.h"
#include "shardstep/tests/bench/reference/transfer_tensors.h"

namespace shardstep {
namespace {

using Kernel = void (*)(const char* from, size_t bytes, float* to);

void Copy(const char* from, size_t bytes, float* to) { std::memcpy(to, from, bytes); }

void Step(const char* from, size_t bytes, float* to) {
  ApplySgd(from, static_cast<int64_t>(bytes / sizeof(float)), to);
}

double BytesPerSecond(TransferWorkload workload, absl::Duration duration, int threads,
                      Kernel kernel) {
  workload.streams = std::clamp(threads, 1, std::max(1, workload.tensors));
  if (!Validate(workload).ok()) return 0;
  const TransferTensors from = Gradients(workload);
  TransferTensors to = InitialParameters(workload);
  std::vector<TransferPart> parts;
  for (int thread = 0; thread < workload.streams; ++thread) {
    parts.emplace_back([&, mine = TensorsOfStream(workload, thread)](Rounds& rounds) {
      for (int64_t round = 0;; ++round) {
        SHARDSTEP_ASSIGN_OR_RETURN(const bool more, rounds.Begin(round));
        if (!more) return absl::OkStatus();
        for (const int i : mine) {
          kernel(reinterpret_cast<const char*>(from[i].data()), workload.bytes, to[i].data());
          // The compiler may not leave out what nobody reads.
          asm volatile("" ::"r"(to[i].data()) : "memory");
        }
      }
    });
  }
  const absl::StatusOr<RoundsResult> result = RunRounds(duration, /*lockstep=*/false, parts);
  if (!result.ok()) return 0;
  return static_cast<double>(result->rounds * workload.tensors * workload.bytes) / result->seconds;
}

}  // namespace

double MemcpyBytesPerSecond(const TransferWorkload& workload, absl::Duration duration,
                            int threads) {
  return BytesPerSecond(workload, duration, threads, Copy);
}

double SgdBytesPerSecond(const TransferWorkload& workload, absl::Duration duration, int threads) {
  return BytesPerSecond(workload, duration, threads, Step);
}

}  // namespace shardstep
