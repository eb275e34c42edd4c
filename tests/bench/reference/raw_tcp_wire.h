// The messages of raw TCP, in the machine's own byte order. A connection begins with one byte, its
// RawDirection. All sizes are multiples of 4: in a stream of them floats stay aligned.
#ifndef SHARDSTEP_TESTS_BENCH_REFERENCE_RAW_TCP_WIRE_H_
#define SHARDSTEP_TESTS_BENCH_REFERENCE_RAW_TCP_WIRE_H_

#include <cstdint>

namespace shardstep {

enum class RawDirection : char { kPush = '>', kPull = '<' };

// Stands before each tensor, in both directions; alone it is the request of a tensor.
struct RawHeader {
  int64_t tensor;
  int64_t bytes;  // that follow; of a request: that are to follow
};

// What the server has received of a push connection since it was opened.
struct RawAck {
  int64_t tensors;
  int64_t bytes;  // of them, without headers
};

}  // namespace shardstep

#endif  // SHARDSTEP_TESTS_BENCH_REFERENCE_RAW_TCP_WIRE_H_
