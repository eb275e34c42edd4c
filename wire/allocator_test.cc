#include "shardstep/wire/allocator.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdlib>
#include <cstring>
#include <vector>

namespace shardstep {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
TEST(ConfigureAllocatorTest, LeavesASanitizersAllocatorAlone) { ConfigureAllocator(); }
#else
TEST(ConfigureAllocatorTest, FreedMemoryStays) {
  ASSERT_TRUE(ConfigureAllocator());
  constexpr size_t kBlock = 1 << 20;  // by default each would be a mapping of its own
  constexpr size_t kBlocks = 64;
  const size_t mappings = mallinfo2().hblks;
  std::vector<void*> blocks;
  for (size_t i = 0; i < kBlocks; ++i) {
    blocks.push_back(std::malloc(kBlock));
    ASSERT_NE(blocks.back(), nullptr);
    std::memset(blocks.back(), 1, kBlock);
  }
  EXPECT_EQ(mallinfo2().hblks, mappings);
  const size_t held = mallinfo2().arena;
  EXPECT_GE(held, kBlock * kBlocks);
  for (void* block : blocks) std::free(block);
  EXPECT_EQ(mallinfo2().arena, held);
}
#endif

}  // namespace
}  // namespace shardstep
