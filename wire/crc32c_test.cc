#include "shardstep/wire/crc32c.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace shardstep {
namespace {

// The definition, bit by bit.
uint32_t SlowCrc32c(absl::string_view data) {
  uint32_t crc = 0xFFFFFFFF;
  for (unsigned char byte : data) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78 : 0);
  }
  return ~crc;
}

TEST(Crc32cTest, KnownValues) {
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(Crc32c(""), 0u);
  // RFC 3720, appendix B.4.
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
}

TEST(Crc32cTest, EveryLengthAndCutAgreesWithTheDefinition) {
  std::string data;
  for (int i = 0; i < 300; ++i) data.push_back(static_cast<char>(i * 37 + i / 7));
  for (size_t length = 0; length <= data.size(); ++length) {
    const absl::string_view whole = absl::string_view(data).substr(0, length);
    ASSERT_EQ(Crc32c(whole), SlowCrc32c(whole)) << length;
    const absl::string_view head = whole.substr(0, length / 3);
    ASSERT_EQ(ExtendCrc32c(Crc32c(head), whole.substr(length / 3)), Crc32c(whole)) << length;
  }
}

// Long enough to be taken piece by piece, with memory asked for ahead.
TEST(Crc32cTest, LongDataAgreesWithTheDefinition) {
  std::string data;
  for (int i = 0; i < 40'000; ++i) data.push_back(static_cast<char>(i * 37 + i / 7));
  for (const size_t length : {10'239, 10'240, 10'241, 12'289, 40'000}) {
    const absl::string_view whole = absl::string_view(data).substr(0, length);
    EXPECT_EQ(Crc32c(whole), SlowCrc32c(whole)) << length;
  }
}

TEST(Crc32cTest, MoreBytesThanAnIntHolds) {
  // Pages that are only read all are the kernel's page of zeros: this takes no memory.
  const size_t size = (size_t{1} << 32) + 12345;
  void* zeros = mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(zeros, MAP_FAILED);
  madvise(zeros, size, MADV_HUGEPAGE);  // fewer page faults, where the kernel grants it
  const absl::string_view data(static_cast<const char*>(zeros), size);
  uint32_t by_pieces = 0;
  for (size_t at = 0; at < size; at += 100'000'000) {
    by_pieces = ExtendCrc32c(by_pieces, data.substr(at, 100'000'000));
  }
  EXPECT_EQ(Crc32c(data), by_pieces);
  munmap(zeros, size);
}

TEST(Crc32cTest, Hex) {
  EXPECT_EQ(Crc32cHex(0xE3069283), "e3069283");
  EXPECT_EQ(Crc32cHex(0x1F), "0000001f");
}

}  // namespace
}  // namespace shardstep
