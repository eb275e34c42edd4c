// TextbookStore: the parameters of a textbook server, and what it does with messages.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_STORE_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_STORE_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "reference/textbook.pb.h"
#include "shardstep/sharding/mutex.h"
#include "shardstep/tests/bench/reference/transfer.h"

namespace shardstep {

inline constexpr int64_t kTextbookChunkBytes = 1 << 20;

// INVALID_ARGUMENT: the chunk is no part of a tensor of `bytes`, one of `tensors`.
absl::Status CheckChunk(const bench::Chunk& chunk, int64_t tensors, int64_t bytes);

// Thread-safe: each tensor has a lock. Owns the parameters. Methods block while another thread is
// at the same tensor.
class TextbookStore {
 public:
  TextbookStore(const TransferWorkload& workload, bool sgd);

  // Takes a piece of a gradient. Returns whether it is the tensor's last.
  absl::StatusOr<bool> Take(const bench::Chunk& chunk);
  // Makes the piece of the requested parameter that begins at `offset`, in bytes, out of a copy.
  absl::Status Fill(const bench::Request& request, int64_t offset, bench::Chunk* chunk);

  int64_t bytes() const { return workload_.bytes; }

 private:
  struct Tensor {
    Mutex mutex;
    std::vector<float> values ABSL_GUARDED_BY(mutex);
  };

  const TransferWorkload workload_;
  const bool sgd_;
  std::deque<Tensor> tensors_;  // not a vector: a mutex stays where it is
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_STORE_H_
