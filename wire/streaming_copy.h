// Copies for memory that is not read again before the caches have held much else.
#ifndef SHARDSTEP_WIRE_STREAMING_COPY_H_
#define SHARDSTEP_WIRE_STREAMING_COPY_H_

#include <cstddef>

namespace shardstep {

// Where as much as this is filled before any of it is read, the caches do not hold it until then.
inline constexpr size_t kPastCachesBytes = 32 << 20;

// What is shorter is not worth the fence.
inline constexpr size_t kShortestStreamBytes = 4 << 10;

// As std::memcpy, but what is written goes past the CPU's caches: its lines are not read first, and
// what the caches hold stays there; below kShortestStreamBytes it is std::memcpy. Other threads see
// it as they would memcpy's. Safe from any thread.
void StreamingCopy(void* to, const void* from, size_t bytes);

}  // namespace shardstep

#endif  // SHARDSTEP_WIRE_STREAMING_COPY_H_
