// The two directions of a textbook transfer as the client's code sees them, whichever API it uses:
// what goes out for a tensor, and what comes in.
//
// Each has: Out and In, the messages; Open, for both APIs; Fill, which makes the next message of a
// tensor; Take, which says how many tensors a message completes. For one thread that fills and one
// that takes. They refer to tensors of the client; nothing blocks.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_SIDES_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_SIDES_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "reference/textbook.grpc.pb.h"
#include "shardstep/tests/bench/reference/transfer_tensors.h"

namespace shardstep {

// One stream's part of a workload.
struct TextbookStream {
  bench::Textbook::Stub* stub = nullptr;  // not owned
  TransferTensors* values = nullptr;      // not owned
  std::vector<int> tensors;
  int64_t bytes = 0;  // of each
  int64_t window = 0;
};

class TextbookPush {
 public:
  using Out = bench::Chunk;
  using In = bench::Ack;

  explicit TextbookPush(const TextbookStream& stream) : stream_(stream) {}

  static auto Open(bench::Textbook::Stub* stub, grpc::ClientContext* context) {
    return stub->Push(context);
  }
  static void Open(bench::Textbook::Stub* stub, grpc::ClientContext* context,
                   grpc::ClientBidiReactor<Out, In>* reactor) {
    stub->async()->Push(context, reactor);
  }

  // The message that begins at `offset` of the tensor, in bytes; returns where it ends.
  int64_t Fill(int tensor, int64_t offset, Out* chunk) const;
  absl::StatusOr<int> Take(const In& ack) const { return ack.tensors(); }

 private:
  const TextbookStream& stream_;
};

class TextbookPull {
 public:
  using Out = bench::Request;
  using In = bench::Chunk;

  explicit TextbookPull(const TextbookStream& stream) : stream_(stream) {}

  static auto Open(bench::Textbook::Stub* stub, grpc::ClientContext* context) {
    return stub->Pull(context);
  }
  static void Open(bench::Textbook::Stub* stub, grpc::ClientContext* context,
                   grpc::ClientBidiReactor<Out, In>* reactor) {
    stub->async()->Pull(context, reactor);
  }

  // One message is all.
  int64_t Fill(int tensor, int64_t offset, Out* request) const;
  // Copies it into its place. INVALID_ARGUMENT: it has none.
  absl::StatusOr<int> Take(const In& chunk) const;

 private:
  const TextbookStream& stream_;
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_TEXTBOOK_SIDES_H_
