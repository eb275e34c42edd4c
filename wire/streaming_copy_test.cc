#include "shardstep/wire/streaming_copy.h"

#include <string>

#include "gtest/gtest.h"

namespace shardstep {
namespace {

// Every start within a cache line, lengths with every rest of a line, and nothing beside it.
TEST(StreamingCopyTest, CopiesWhatMemcpyDoes) {
  std::string from(2 * kShortestStreamBytes, '\0');
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<char>(i * 31 + i / 256);
  for (size_t offset = 0; offset < 64; ++offset) {
    for (size_t bytes = kShortestStreamBytes - 2; bytes < kShortestStreamBytes + 130; ++bytes) {
      alignas(64) char to[2 * kShortestStreamBytes] = {};
      std::string expected(sizeof(to), '\0');
      expected.replace(offset, bytes, from, 3, bytes);
      StreamingCopy(to + offset, from.data() + 3, bytes);
      ASSERT_EQ(std::string(to, sizeof(to)), expected) << offset << ", " << bytes;
    }
  }
}

}  // namespace
}  // namespace shardstep
