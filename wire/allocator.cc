#include "shardstep/wire/allocator.h"

#include <malloc.h>

namespace shardstep {

bool ConfigureAllocator() {
  // gRPC receives into blocks of 64 KiB: with more than 128 KiB free at its top, malloc would
  // return it to the kernel.
  return mallopt(M_TRIM_THRESHOLD, -1) == 1 && mallopt(M_TOP_PAD, 64 << 20) == 1 &&
         // A large block would be mapped for itself, and anew for each tensor.
         mallopt(M_MMAP_MAX, 0) == 1 &&
         // With several arenas, those that empty are unmapped.
         mallopt(M_ARENA_MAX, 1) == 1;
}

}  // namespace shardstep
