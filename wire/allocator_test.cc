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
  constexpr size_t kBlocks = 160;     // more than is left at the top in any case
  const size_t mappings = mallinfo2().hblks;
  std::vector<void*> blocks;
  blocks.reserve(kBlocks);  // or it would lie between the blocks and hold them
  for (size_t i = 0; i < kBlocks; ++i) {
    blocks.push_back(std::malloc(kBlock));
    ASSERT_NE(blocks.back(), nullptr);
    std::memset(blocks.back(), 1, kBlock);
    if (i == 0) {
      EXPECT_GE(mallinfo2().arena, 64 * kBlock) << "grows by small steps";
    }
  }
  EXPECT_EQ(mallinfo2().hblks, mappings);
  const size_t held = mallinfo2().arena;
  EXPECT_GE(held, kBlock * kBlocks);
  for (void* block : blocks) std::free(block);
  EXPECT_EQ(mallinfo2().arena, held);

  // Larger than what malloc may be told to leave to the heap by its threshold.
  void* const large = std::malloc(64 * kBlock);
  ASSERT_NE(large, nullptr);
  EXPECT_EQ(mallinfo2().hblks, mappings);
  std::free(large);
  EXPECT_EQ(mallinfo2().arena, held);
}
#endif

}  // namespace
}  // namespace shardstep
